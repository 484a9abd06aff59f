"""Sizes: computations with sizes, and branches on sizes."""

# The traps use the code that the linter would rewrite.
# ruff: noqa: RET504, RUF005, SIM300, UP031, UP032

from __future__ import annotations

import copy
import enum
import math
import pickle
from functools import lru_cache, reduce
from math import sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core.tests.traps.harness import Base, Traps, check

TRAPS = Traps()
exact, assumes, refused = TRAPS.exact, TRAPS.assumes, TRAPS.refused


@exact()
class LoopOverRange(Base):
    def forward(self, x):
        for _ in range(x.shape[0]):
            x = self.lin(x)
        return x


@exact()
class LoopOverLen(Base):
    def forward(self, x):
        for i in range(len(x)):
            x = x + self.lin(x) * i
        return x


@exact()
class LoopOverTensor(Base):
    def forward(self, x):
        return torch.stack([self.lin(row) for row in x])


@exact()
class LoopOverEnumerate(Base):
    def forward(self, x):
        out = 0
        for i, row in enumerate(x.t()[0]):
            out = out + self.lin(x).sum() * row * i
        return out


@exact()
class LoopOverZip(Base):
    def forward(self, x):
        return sum(a * b for a, b in zip(x, self.lin(x), strict=True))


@assumes()
class ListTimesSize(Base):
    def forward(self, x):
        return torch.cat([self.lin(x)] * x.shape[0])


@assumes()
class SizeTimesList(Base):
    def forward(self, x):
        return torch.cat(x.shape[0] * [self.lin(x)])


@assumes()
class ListTimesEqualsSize(Base):
    def forward(self, x):
        parts = [self.lin(x)]
        parts *= x.shape[0]
        return torch.cat(parts)


@assumes()
class StringTimesSize(Base):
    def forward(self, x):
        return self.lin(x) * len("a" * x.shape[0])


@assumes()
class IndexesAList(Base):
    def forward(self, x):
        return self.lin(x) * [1.0, 2.0, 3.0, 4.0, 5.0, 6.0][x.shape[0]]


@assumes()
class IndexesARange(Base):
    def forward(self, x):
        return self.lin(x) * range(10)[x.shape[0]]


@assumes()
class SlicesAList(Base):
    def forward(self, x):
        return self.lin(x) * sum([1.0, 2.0, 3.0, 4.0, 5.0, 6.0][: x.shape[0]])


@assumes()
class SlicesATuple(Base):
    def forward(self, x):
        return self.lin(x) * sum((1.0, 2.0, 3.0, 4.0, 5.0)[-x.shape[0] :])


@assumes()
class SlicesAString(Base):
    def forward(self, x):
        return self.lin(x) * len("abcdefgh"[: x.shape[0]])


@assumes()
class SlicesARange(Base):
    def forward(self, x):
        return self.lin(x) * sum(range(10)[: x.shape[0]])


@assumes()
class SlicesModules(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(6)])

    def forward(self, x):
        n = x.shape[0]
        for layer in self.layers[:n]:
            x = layer(x)
        return x


@assumes()
class IndexesModules(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(6)])

    def forward(self, x):
        return self.layers[x.shape[0]](x)


@assumes()
class SequentialSlice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(4, 4) for _ in range(6)])

    def forward(self, x):
        return self.layers[: x.shape[0]](x)


@assumes()
class ShapeNumel(Base):
    def forward(self, x):
        return self.lin(x) * x.shape.numel()


@exact()
class MathProd(Base):
    def forward(self, x):
        return self.lin(x) * math.prod(x.shape)


@assumes()
class NumpyProd(Base):
    def forward(self, x):
        return self.lin(x) * int(np.prod(x.shape))


@assumes()
class NumpyProdOfSize(Base):
    def forward(self, x):
        return self.lin(x).reshape(int(np.prod(list(x.size()))))


@exact()
class NumpyArrayOfSizes(Base):
    def forward(self, x):
        return self.lin(x) * float(np.array(x.shape).sum())


@exact()
class NumpySqrt(Base):
    def forward(self, x):
        return self.lin(x) / np.sqrt(x.shape[0])


@assumes()
class NumpyArangeOfSize(Base):
    def forward(self, x):
        return self.lin(x) * torch.tensor(np.arange(x.shape[0]).tolist()).unsqueeze(1)


@assumes()
class NumpyInt(Base):
    def forward(self, x):
        return self.lin(x) * int(np.int64(x.shape[0]))


@assumes()
class NumpyFloat32(Base):
    def forward(self, x):
        return self.lin(x) * float(np.float32(x.shape[0]) * np.float32(0.1))


@exact()
class NumpyScalarTimesSize(Base):
    def forward(self, x):
        return self.lin(x) * (np.float64(0.5) * x.shape[0])


@assumes()
class SizeTimesNumpyScalar(Base):
    def forward(self, x):
        return self.lin(x) * (x.shape[0] * np.float32(0.1))


@assumes()
class SizeTimesNumpyInt(Base):
    def forward(self, x):
        return self.lin(x) * (x.shape[0] * np.int32(3))


@exact()
class NumpyArrayTimesSize(Base):
    def forward(self, x):
        return self.lin(x) * (np.array([1.0, 2.0]) * x.shape[0]).sum()


@exact()
class MathSqrt(Base):
    def forward(self, x):
        return self.lin(x) / math.sqrt(x.shape[0])


@exact()
class ImportedSqrt(Base):
    def forward(self, x):
        return self.lin(x) / sqrt(x.shape[0])


_log2, _ceil, _floor = math.log2, math.ceil, math.floor


@exact()
class AliasedLog(Base):
    def forward(self, x):
        return self.lin(x) * _log2(x.shape[0] + 1)


@exact()
class MathOfAllKinds(Base):
    def forward(self, x):
        n = x.shape[0]
        y = self.lin(x)
        y = y * math.log(n + 1) + math.ceil(n / 2) + math.floor(n / 2) + math.exp(-n)
        y = y * math.pow(n, 0.5) + math.gcd(n, 4) + math.isqrt(n) + math.trunc(n / 3)
        return y


@assumes()
class MathTanhSin(Base):
    def forward(self, x):
        n = x.shape[0]
        return self.lin(x) * math.sin(n) + math.tanh(n) + math.cos(n / 2) + math.atan2(n, 2)


@assumes()
class MathOthers(Base):
    def forward(self, x):
        n = x.shape[0]
        return self.lin(x) * math.comb(n, 1) + math.factorial(n) + math.lcm(n, 4) + math.hypot(n, 1)


@assumes()
class MathFsum(Base):
    def forward(self, x):
        return (
            self.lin(x) * math.fsum(x.shape)
            + math.fmod(x.shape[0], 2)
            + math.dist([x.shape[0]], [1])
        )


@assumes()
class MathIsclose(Base):
    def forward(self, x):
        return self.lin(x) if math.isclose(x.shape[0], 3) else x


@refused("ldexp")
class MathCopysign(Base):
    def forward(self, x):
        return self.lin(x) * math.copysign(x.shape[0] / 2, -1) + math.ldexp(1.0, x.shape[0])


@assumes()
class MathFrexp(Base):
    def forward(self, x):
        mantissa, exponent = math.frexp(x.shape[0])
        return self.lin(x) * mantissa + exponent + math.modf(x.shape[0] / 2)[0]


@assumes()
class IntOfHalf(Base):
    def forward(self, x):
        return self.lin(x) * int(x.shape[0] / 2)


@exact()
class Arithmetic(Base):
    def forward(self, x):
        n = x.shape[0]
        y = self.lin(x) * n**0.5 + n // 2 - n % 2 + -n + abs(-n) + 2**n + (n << 1) + (n >> 1)
        return y + (n & 1) + (n | 1) + (n ^ 1) + ~n + +n + 1 / n + 7 // n + 7 % n + n**2


@exact()
class Divmod(Base):
    def forward(self, x):
        a, b = divmod(x.shape[0], 2)
        c, d = divmod(7, x.shape[0])
        return self.lin(x) * a + b + c + d


@exact()
class Rounds(Base):
    def forward(self, x):
        n = x.shape[0]
        return self.lin(x) * round(n / 2) + round(n / 3, 1) + round(n, -1)


@exact()
class MinMax(Base):
    def forward(self, x):
        return self.lin(x) * min(x.shape[0], 3) + max(2, x.shape[0])


@exact()
class MaxOfShape(Base):
    def forward(self, x):
        return self.lin(x) * max(x.shape)


@exact()
class SumOfShape(Base):
    def forward(self, x):
        return self.lin(x) * sum(x.shape)


@assumes()
class SortedShape(Base):
    def forward(self, x):
        return self.lin(x) * sorted(x.shape)[0]


@assumes()
class FormatsKey(Base):
    def __init__(self):
        super().__init__()
        self.table = {f"size_{i}": float(i * i) for i in range(9)}

    def forward(self, x):
        return self.lin(x) * self.table[f"size_{x.shape[0]}"]


@assumes()
class PercentFormats(Base):
    def forward(self, x):
        return self.lin(x) * len("%d" % (10 ** x.shape[0]))


@assumes()
class PercentFormatsOne(Base):
    def forward(self, x):
        return self.lin(x) * float("%i" % x.shape[0])


@assumes()
class PercentFormatsFloat(Base):
    def forward(self, x):
        return self.lin(x) * float("%.2f" % (x.shape[0] / 3))


@assumes()
class PercentFormatsIntAsFloat(Base):
    def forward(self, x):
        return self.lin(x) * float("%f" % x.shape[0])


@assumes()
class FormatMethod(Base):
    def forward(self, x):
        return self.lin(x) * float("{:03d}".format(x.shape[0]))


@assumes()
class FormatBuiltin(Base):
    def forward(self, x):
        return self.lin(x) * float(format(x.shape[0], "d"))


@assumes()
class HexChrBin(Base):
    def forward(self, x):
        n = x.shape[0]
        return self.lin(x) * int(hex(n), 16) + ord(chr(n)) + int(bin(n), 2) + int(oct(n), 8)


@assumes()
class DictBySize(Base):
    def __init__(self):
        super().__init__()
        self.table = {i: float(i * i) for i in range(9)}

    def forward(self, x):
        return self.lin(x) * self.table[x.shape[0]]


@assumes()
class DictGetBySize(Base):
    def forward(self, x):
        return self.lin(x) * {3: 2.0, 4: 5.0}.get(x.shape[0], 1.0)


@assumes()
class DictOfSizes(Base):
    def forward(self, x):
        return self.lin(x) * {x.shape[0]: 2.0}.get(3, 1.0)


@assumes()
class SetOfSizes(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if x.shape[0] in {3, 4} else 1.0)


@assumes()
class InListOfSizes(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if x.shape[0] in [7, 3] else 1.0)


@assumes()
class InRange(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if x.shape[0] in range(2, 4) else 1.0)


@assumes()
class InShape(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if 5 in x.shape else 1.0)


@exact()
class ShapeIndex(Base):
    def forward(self, x):
        return self.lin(x) * x.shape.index(4) + x.shape.count(4)


@assumes()
class ListIndexOfSize(Base):
    def forward(self, x):
        return self.lin(x) * [1, 2, 5, 3].index(x.shape[0])


@assumes()
class LenOfUniqueSizes(Base):
    def forward(self, x):
        return self.lin(x) * len(set(x.shape))


@lru_cache
def _cached(n):
    return n * 2.0


@exact()
class LruCache(Base):
    def forward(self, x):
        return self.lin(x) * _cached(x.shape[0])


@lru_cache
def _positions(n):
    return torch.arange(n, dtype=torch.float32).unsqueeze(1)


@exact()
class LruCacheOfTensor(Base):
    def forward(self, x):
        return self.lin(x) * _positions(x.shape[0])


@lru_cache
def _untraced_positions(n):
    return torch.arange(int(n), dtype=torch.float32).unsqueeze(1)


_untraced_positions(3)


@assumes()
class LruCacheOfTensorFilledBefore(Base):
    def forward(self, x):
        return self.lin(x) * _untraced_positions(x.shape[0])


@assumes(others=[(torch.randn(0, 4),)])
class Truth(Base):
    def forward(self, x):
        return self.lin(x) if x.shape[0] else x


@assumes(others=[(torch.randn(0, 4),)])
class Not(Base):
    def forward(self, x):
        return x if not x.shape[0] else self.lin(x)


@assumes(others=[(torch.randn(0, 4),)])
class AllOfShape(Base):
    def forward(self, x):
        return self.lin(x) if all(x.shape) else x - 1


@assumes(others=[(torch.randn(0, 4),)])
class OrDefault(Base):
    def forward(self, x):
        return self.lin(x) * (x.shape[0] or 5)


@assumes((torch.randn(3, 4), torch.randn(3, 4)), [(torch.randn(3, 4), torch.randn(1, 4))])
class EqualSizes(Base):
    def forward(self, x, y):
        return self.lin(x) + y if x.shape[0] == y.shape[0] else self.lin(x) - y


@assumes((torch.randn(3, 4), torch.randn(3, 4)), [(torch.randn(3, 4), torch.randn(1, 4))])
class EqualShapes(Base):
    def forward(self, x, y):
        return self.lin(x) + y if x.size() == y.size() else self.lin(x) - y


@assumes((torch.randn(3, 4), torch.randn(3, 4)), [(torch.randn(3, 4), torch.randn(1, 4))])
class UnequalShapes(Base):
    def forward(self, x, y):
        return self.lin(x) - y if x.shape != y.shape else self.lin(x) + y


@assumes((torch.randn(3, 4), torch.randn(3, 4)), [(torch.randn(3, 4), torch.randn(1, 4))])
class EqualSlicesOfShapes(Base):
    def forward(self, x, y):
        return self.lin(x) + y if x.shape[:1] == y.shape[:1] else self.lin(x) - y


@exact()
class ShapeEqualsTuple(Base):
    def forward(self, x):
        return self.lin(x) if x.shape == (3, 4) else x - 1


@assumes()
class ShapeUnequalTuple(Base):
    def forward(self, x):
        return self.lin(x) if x.shape != (5, 4) else x - 1


@exact()
class ShapeEqualsShape(Base):
    def forward(self, x):
        return self.lin(x) if x.shape == torch.Size([3, 4]) else x - 1


@assumes()
class ShapeLess(Base):
    def forward(self, x):
        return self.lin(x) if x.shape < (4, 4) else x - 1


@assumes()
class ShapeAsKey(Base):
    def forward(self, x):
        return self.lin(x) * {(3, 4): 2.0}.get(tuple(x.shape), 1.0)


@assumes()
class SizeAsKey(Base):
    def forward(self, x):
        return self.lin(x) * {torch.Size([3, 4]): 2.0}.get(x.shape, 1.0)


@assumes()
class ShapeInList(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if x.shape in [(3, 4)] else 1.0)


@exact()
class ShapeMatches(Base):
    def forward(self, x):
        match tuple(x.shape):
            case (3, _):
                return self.lin(x)
            case (n, 4):
                return x - n
        return x


@exact()
class SizeMatches(Base):
    def forward(self, x):
        match x.shape[0]:
            case 3:
                return self.lin(x)
            case _:
                return x


@assumes()
class ChunksByConstant(Base):
    def forward(self, x):
        return sum(part.sum() * i for i, part in enumerate(self.lin(x).chunk(3)))


@assumes()
class ChunksBySize(Base):
    def forward(self, x):
        return [part.sum() for part in self.lin(x).t().chunk(x.shape[0])]


@assumes()
class SplitsByConstant(Base):
    def forward(self, x):
        parts = self.lin(x).split(2)
        return parts[-1], len(parts)


@assumes()
class SplitsLast(Base):
    def forward(self, x):
        return self.lin(x).split(2)[-1]


@assumes()
class SplitsReversed(Base):
    def forward(self, x):
        return torch.cat(self.lin(x).split(1)[::-1])


@assumes()
class TorchSplitDim(Base):
    def forward(self, x):
        first, *rest = torch.split(self.lin(x), 2, dim=0)
        return first, rest


@exact()
class SplitWithSizes(Base):
    def forward(self, x):
        n = x.shape[0]
        a, b = self.lin(x).split([1, n - 1])
        return a, b


@exact()
class VSplit(Base):
    def forward(self, x):
        return torch.vsplit(self.lin(x), [2])[1]


@exact()
class ArraySplit(Base):
    def forward(self, x):
        return torch.tensor_split(self.lin(x), 2)[0]


@assumes((torch.randn(2, 4),), [(torch.randn(3, 4),)])
class Unpacks(Base):
    def forward(self, x):
        a, b = self.lin(x)
        return a - b


@assumes((torch.randn(2, 4),), [(torch.randn(3, 4),)])
class UnpacksWithStar(Base):
    def forward(self, x):
        a, *b = self.lin(x)
        return a, b


@assumes()
class CallsWithStar(Base):
    def forward(self, x):
        return torch.stack([*self.lin(x)])


@assumes()
class ListOfTensor(Base):
    def forward(self, x):
        return list(self.lin(x))[-1]


@assumes()
class ReversedTensor(Base):
    def forward(self, x):
        return torch.stack(list(reversed(self.lin(x))))


@assumes()
class UnbindLast(Base):
    def forward(self, x):
        return self.lin(x).unbind(0)[-1]


@exact()
class MapsOverTensor(Base):
    def forward(self, x):
        return reduce(torch.add, map(self.lin, x))


@assumes()
class NextOfTensor(Base):
    def forward(self, x):
        return next(iter(self.lin(x)))


@exact()
class SizeArithmetic(Base):
    def forward(self, x):
        shape = x.shape[:-1] + (2, 2)
        y = self.lin(x).view(shape)
        return (
            y.view(*x.shape[:-1], -1).view((*x.shape[:1], 4)).reshape(torch.Size([x.shape[0], 4]))
        )


@exact()
class ShapeTimesTwo(Base):
    def forward(self, x):
        return torch.ones((x.shape * 2)[:3]).sum() * self.lin(x)


@exact()
class ShapeAsList(Base):
    def forward(self, x):
        shape = list(x.shape)
        shape[-1] = 2
        shape.insert(1, 2)
        return self.lin(x).view(shape)


@exact()
class Numel(Base):
    def forward(self, x):
        return self.lin(x).view(x.numel() // 4, 4) * x.nelement() + torch.numel(x)


@exact()
class Strided(Base):
    def forward(self, x):
        y = self.lin(x)
        return y.as_strided((y.shape[0], 2), (y.stride(0), 2)) * y.stride()[0]


@exact()
class StridedTorch(Base):
    def forward(self, x):
        y = self.lin(x)
        return torch.as_strided(y, y.size(), y.stride(), y.storage_offset())


@exact()
class StrideOfTransposed(Base):
    def forward(self, x):
        y = self.lin(x).t().contiguous()
        return y * y.stride(0)


@assumes()
class StorageOffset(Base):
    def forward(self, x):
        return self.lin(x) * x[-1].storage_offset()


@exact((torch.randn(3, 4),), [(torch.randn(4, 3).t(),)])
class IsContiguous(Base):
    def forward(self, x):
        return self.lin(x) if x.is_contiguous() else x - 1


@exact()
class KeepsSize(Base):
    def forward(self, x):
        self.n = x.shape[0]
        return self.lin(x) * self.n


class ScalesBy(nn.Module):
    def forward(self, x, n):
        return x * n


class ViewsAs(nn.Module):
    def forward(self, x, *, shape):
        return x.view(*shape, 2, 2)


@exact()
class PassesSizes(Base):
    def __init__(self):
        super().__init__()
        self.scale = ScalesBy()
        self.view = ViewsAs()

    def forward(self, x):
        n = x.shape[0]
        y = self.scale(self.lin(x), n)
        y = self.scale(y, n + 1)
        y = self.scale(y, 3)
        return self.view(y, shape=x.shape[:1])


class Chooses(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x, n):
        return self.lin(x) if n > 2 else x


@assumes()
class BranchInSubmodule(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = Chooses()

    def forward(self, x):
        return self.one(x, x.shape[0]) + self.one(x, 5) + self.one(x, x.shape[0] + 1)


@exact()
class ReturnsSizes(Base):
    def forward(self, x):
        return (
            self.lin(x),
            x.shape[0],
            x.shape,
            [x.numel()],
            {"n": x.size(0) * 2, "f": x.size(0) / 2},
        )


@exact()
class OnlySizes(nn.Module):
    def forward(self, x):
        return x.shape[0] + 1


class GivesSize(nn.Module):
    def forward(self, x):
        return x.shape[0], x.shape[1]


@exact()
class SizeFromSubmodule(Base):
    def __init__(self):
        super().__init__()
        self.size = GivesSize()

    def forward(self, x):
        n, m = self.size(x)
        return self.lin(x).view(n, 2, m // 2) * n


@exact()
class TensorOfSize(Base):
    def forward(self, x):
        return self.lin(x) * torch.tensor([x.shape[0]]) + torch.tensor(x.shape[0])


@exact()
class TensorOfShape(Base):
    def forward(self, x):
        return self.lin(x) * torch.tensor(x.shape).sum() + torch.as_tensor(x.shape[0])


@refused("in this call")
class OldTensorOfSize(Base):
    def forward(self, x):
        return self.lin(x) * torch.Tensor([x.shape[0]])


@refused("in this call")
class LongTensorOfSize(Base):
    def forward(self, x):
        return self.lin(x) * torch.LongTensor([x.shape[0], 2]).sum()


@refused("in this call")
class OldTensorByShape(Base):
    def forward(self, x):
        return self.lin(x) * torch.Tensor(x.shape[0], 1).fill_(2.0)


@exact()
class NewTensorOfSize(Base):
    def forward(self, x):
        return self.lin(x) * x.new_tensor([x.shape[0]]) + x.new_full((1,), x.shape[0])


@exact()
class OldNew(Base):
    def forward(self, x):
        return self.lin(x) * x.new([x.shape[0]]) + x.new(x.shape[0], 4).zero_()


@assumes()
class FromNumpy(Base):
    def forward(self, x):
        return self.lin(x) * torch.from_numpy(np.arange(x.shape[0])).unsqueeze(1)


_from_numpy = torch.from_numpy


@refused("from_numpy|does not see")
class FromNumpyImportedBefore(Base):
    def forward(self, x):
        return self.lin(x) * _from_numpy(np.arange(x.shape[0])).unsqueeze(1)


@assumes()
class AsTensorOfNumpy(Base):
    def forward(self, x):
        return self.lin(x) * torch.as_tensor(np.arange(x.shape[0])).unsqueeze(1)


@assumes()
class TensorOfNumpy(Base):
    def forward(self, x):
        return self.lin(x) * torch.tensor(np.arange(x.shape[0])).unsqueeze(1)


@assumes()
class TensorOfNumpyZeros(Base):
    def forward(self, x):
        return self.lin(x) + torch.tensor(np.ones((x.shape[0], 4)), dtype=torch.float32)


@refused("ndarray|does not see")
class OldTensorOfNumpy(Base):
    def forward(self, x):
        return self.lin(x) + torch.FloatTensor(np.ones((x.shape[0], 4)))


@exact()
class RandomMask(Base):
    def forward(self, x):
        n = x.shape[0]
        mask = torch.rand(n) < 0.5
        return self.lin(x) * mask.unsqueeze(1) + torch.bernoulli(torch.full((n, 1), 0.5))


@exact()
class CachesPositions(Base):
    def __init__(self):
        super().__init__()
        self.cache = None

    def forward(self, x):
        if self.cache is None or self.cache.shape[0] != x.shape[0]:
            self.cache = torch.arange(x.shape[0]).float().unsqueeze(1)
        return self.lin(x) * self.cache


@exact()
class CachesInDict(Base):
    def __init__(self):
        super().__init__()
        self.cache = {}

    def forward(self, x):
        n = x.shape[0]
        if n not in self.cache:
            self.cache[n] = torch.arange(n).float().unsqueeze(1)
        return self.lin(x) * self.cache[n]


@refused("assigns self.cache", placed=False)
class CachesOneInDict(Base):
    """Has a cache that ignores the size, so that the second call differs from the first."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def forward(self, x):
        if "ones" not in self.cache:
            self.cache["ones"] = torch.ones(4) * x.mean()
        return self.lin(x) * self.cache["ones"]


@exact()
class Closure(Base):
    def __init__(self):
        super().__init__()
        self.apply_ = Applies()

    def forward(self, x):
        n = x.shape[0]
        return self.apply_(self.lin(x), lambda y: y.view(n, 2, 2) * (n + 1) + x.sum())


class Applies(nn.Module):
    def forward(self, x, function):
        return function(x) * 2


@exact()
class BroadcastShapes(Base):
    def forward(self, x):
        shape = torch.broadcast_shapes(x.shape, (1, 4))
        return self.lin(x).expand(shape) + torch.zeros(shape)


@exact()
class SizeByName(Base):
    def forward(self, x):
        return self.lin(x) * x.size(dim=0) + x.size(-2) + x.stride(dim=0)


@exact()
class FullOfSize(Base):
    def forward(self, x):
        n = x.shape[0]
        return self.lin(x) + torch.full((n, 4), n / 7) + torch.arange(n).unsqueeze(1)


@exact()
class Linspace(Base):
    def forward(self, x):
        n = x.shape[0]
        return self.lin(x) + torch.linspace(0, n, n).unsqueeze(1) + torch.eye(n, 4)


@exact()
class SlicesBySize(Base):
    def forward(self, x):
        n = x.shape[0] // 2
        y = self.lin(x)
        return y[:n], y[n:], y[-n:], y[n - 1], y[..., : n + 1], y[n:, None]


@exact()
class NarrowsRolls(Base):
    def forward(self, x):
        n = x.shape[0]
        y = self.lin(x)
        return y.narrow(0, n - 1, 1), y.roll(n // 2, 0), y.select(0, n - 1), y.repeat(n, 1)


@exact()
class BoolArithmetic(Base):
    def forward(self, x):
        return self.lin(x) * (x.shape[0] * True) + (True + x.shape[0])


@assumes()
class ComparisonArithmetic(Base):
    def forward(self, x):
        return self.lin(x) * ((x.shape[0] > 2) + 1)


@assumes()
class ComplexArithmetic(Base):
    def forward(self, x):
        return self.lin(x) * (x.shape[0] * 1j).imag


@assumes()
class ComplexOf(Base):
    def forward(self, x):
        return self.lin(x) * complex(x.shape[0], 1).real


@exact()
class FloatOf(Base):
    def forward(self, x):
        return self.lin(x) * float(x.shape[0])


@assumes()
class IntOf(Base):
    def forward(self, x):
        return self.lin(x) * int(x.shape[0])


@assumes()
class BytesOf(Base):
    def forward(self, x):
        return self.lin(x) * len(bytes(x.shape[0])) + len(bytearray(x.shape[0]))


@assumes()
class RealAndImag(Base):
    def forward(self, x):
        n = x.shape[0]
        return self.lin(x) * n.real + n.numerator + n.conjugate()


@assumes()
class OfFloat(Base):
    def forward(self, x):
        n = x.shape[0] / 1
        return self.lin(x) * n.real + n.conjugate() + n.imag


@refused("__add__")
class IntPower(Base):
    def forward(self, x):
        return self.lin(x) * pow(x.shape[0], 2, 5) + pow(2, x.shape[0]) + int.__add__(x.shape[0], 1)


@assumes()
class FractionOf(Base):
    def forward(self, x):
        from fractions import Fraction

        return self.lin(x) * float(Fraction(x.shape[0], 2) + 1)


@assumes()
class FractionTimes(Base):
    def forward(self, x):
        from fractions import Fraction

        return self.lin(x) * float(Fraction(1, 2) * x.shape[0])


@refused("Decimal")
class DecimalOf(Base):
    def forward(self, x):
        from decimal import Decimal

        return self.lin(x) * float(Decimal(x.shape[0]) / 2)


@refused("SymbolicInt")
class Statistics(Base):
    def forward(self, x):
        import statistics

        return self.lin(x) * statistics.mean(x.shape)


@assumes()
class Itertools(Base):
    def forward(self, x):
        import itertools

        items = list(itertools.islice(itertools.count(), x.shape[0]))
        return self.lin(x) * sum(items)


@exact()
class ItertoolsRepeat(Base):
    def forward(self, x):
        import itertools

        for _ in itertools.repeat(None, x.shape[0]):
            x = self.lin(x)
        return x


@assumes()
class ItertoolsCombinations(Base):
    def forward(self, x):
        import itertools

        return self.lin(x) * len(list(itertools.combinations([1, 2, 3, 4, 5, 6], x.shape[0])))


@assumes()
class RepeatsProduct(Base):
    def forward(self, x):
        import itertools

        return self.lin(x) * len(list(itertools.product([1, 2], repeat=x.shape[0])))


@refused("integer is required")
class Deque(Base):
    def forward(self, x):
        from collections import deque

        return self.lin(x) * sum(deque([1, 2, 3, 4, 5, 6], maxlen=x.shape[0]))


@assumes()
class Padded(Base):
    def forward(self, x):
        return self.lin(x) * len("ab".ljust(x.shape[0])) + len("1".zfill(x.shape[0]))


@assumes()
class RangeOfNumpy(Base):
    def forward(self, x):
        for i in np.arange(x.shape[0]):
            x = self.lin(x) + int(i)
        return x


@assumes()
class BisectOf(Base):
    def forward(self, x):
        import bisect

        return self.lin(x) * bisect.bisect_left([1, 2, 3, 4, 6], x.shape[0])


@exact()
class WhileOverSize(Base):
    def forward(self, x):
        n = x.shape[0]
        while n > 0:
            x = self.lin(x)
            n -= 1
        return x


@assumes()
class ChainedComparison(Base):
    def forward(self, x):
        return self.lin(x) if 2 < x.shape[0] <= 4 else x


@exact()
class IsSize(Base):
    def forward(self, x):
        return self.lin(x) if x.shape[0] is not None and isinstance(x.shape[0], int) else x


@assumes()
class DoublesRange(Base):
    def forward(self, x):
        return self.lin(x) * sum(range(0, x.shape[0], 2)) + len(range(x.shape[0] // 2))


_range = range


@exact()
class AliasedRange(Base):
    def forward(self, x):
        for _ in _range(x.shape[0]):
            x = self.lin(x)
        return x


def _defaulted(n, range=range):
    return sum(range(n))


@assumes()
class RangeAsDefault(Base):
    def forward(self, x):
        return self.lin(x) * _defaulted(x.shape[0])


@assumes()
class Struct(Base):
    def forward(self, x):
        import struct

        return self.lin(x) * struct.unpack("i", struct.pack("i", x.shape[0]))[0]


@refused("not JSON serializable")
class Json(Base):
    def forward(self, x):
        import json

        return self.lin(x) * json.loads(json.dumps([x.shape[0]]))[0]


@assumes()
class CopiedSize(Base):
    def forward(self, x):
        n = copy.deepcopy(x.shape[0])
        return self.lin(x) * n + pickle.loads(pickle.dumps(x.shape[0]))


@assumes()
class ArrayModule(Base):
    def forward(self, x):
        import array

        return self.lin(x) * array.array("i", [x.shape[0]])[0]


@assumes()
class OperatorIndex(Base):
    def forward(self, x):
        import operator

        return self.lin(x) * operator.index(x.shape[0])


@exact()
class SumStartsAtSize(Base):
    def forward(self, x):
        return self.lin(x) * sum([1, 2], x.shape[0])


@assumes()
class AnyOfSizes(Base):
    def forward(self, x):
        return self.lin(x) if any(n == 3 for n in x.shape) else x


@exact((torch.randn(2, 6, 4),), [(torch.randn(3, 5, 4),), (torch.randn(1, 1, 4),)])
class Attention(Base):
    def forward(self, x):
        b, t, c = x.shape
        q = self.lin(x).view(b, t, 2, c // 2).transpose(1, 2)
        mask = torch.ones(t, t, dtype=torch.bool, device=x.device).tril()
        weights = (q @ q.transpose(-2, -1)) * (1.0 / math.sqrt(q.size(-1)))
        weights = weights.masked_fill(~mask[:t, :t], float("-inf")).softmax(-1)
        return (weights @ q).transpose(1, 2).contiguous().view(b, t, c)


@exact((torch.randn(2, 6, 4),), [(torch.randn(3, 5, 4),)])
class CausalBuffer(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer(
            "mask", torch.tril(torch.ones(16, 16)).view(1, 16, 16), persistent=False
        )
        self.position = nn.Embedding(16, 4)

    def forward(self, x):
        t = x.size(1)
        x = x + self.position(torch.arange(0, t, dtype=torch.long, device=x.device))
        return self.mask[:, :t, :t].float() @ self.lin(x)


@assumes((torch.randn(1, 2, 7, 7),), [(torch.randn(1, 2, 8, 8),), (torch.randn(2, 2, 6, 7),)])
class PadsToEven(nn.Module):
    def forward(self, x):
        h, w = x.shape[-2:]
        if h % 2 or w % 2:
            x = F.pad(x, (0, w % 2, 0, h % 2))
        return F.avg_pool2d(x, 2)


@exact((torch.randn(1, 2, 7, 7),), [(torch.randn(1, 2, 8, 9),)])
class Interpolates(nn.Module):
    def forward(self, x):
        h, w = x.shape[-2:]
        y = F.interpolate(x, size=(h * 2, w + 1), mode="bilinear")
        return F.interpolate(y, size=x.shape[2:]), F.interpolate(x, scale_factor=2.0)


@exact()
class FloatTimesSize(Base):
    def forward(self, x):
        return self.lin(x) * (0.5 * x.shape[0])


@exact()
class FloatOverSize(Base):
    def forward(self, x):
        return self.lin(x) * (1.0 / x.shape[0]) + (2.0 - x.shape[0]) + 2.0 ** x.shape[0]


@assumes()
class FloatLessThanSize(Base):
    def forward(self, x):
        return self.lin(x) if 3.5 > x.shape[0] else x


@exact()
class FloatEqualsSize(Base):
    def forward(self, x):
        return self.lin(x) if 3.0 == x.shape[0] else x


@exact()
class TrueTimesSize(Base):
    def forward(self, x):
        return self.lin(x) * (True * x.shape[0])


@exact()
class TruePlusSize(Base):
    def forward(self, x):
        return self.lin(x) * (self.training + x.shape[0])


class Level(enum.IntEnum):
    LOW = 2


@exact()
class EnumTimesSize(Base):
    def forward(self, x):
        return self.lin(x) * (Level.LOW * x.shape[0])


@exact()
class SizeTimesEnum(Base):
    def forward(self, x):
        return self.lin(x) * (x.shape[0] * Level.LOW)


@assumes()
class ComplexTimesSize(Base):
    def forward(self, x):
        return self.lin(x) * (1j * x.shape[0]).imag


@exact()
class DivmodOfSize(Base):
    def forward(self, x):
        a, b = divmod(x.shape[0], 2)
        return self.lin(x) * a + b


@exact()
class ImportedSqrtOfFloat(Base):
    def forward(self, x):
        return self.lin(x) / sqrt(x.shape[0] / 2)


@exact()
class ImportedCeil(Base):
    def forward(self, x):
        return self.lin(x) * _ceil(x.shape[0] / 2) + _floor(x.shape[0] / 2)


@exact()
class MathSinOfFloat(Base):
    def forward(self, x):
        return self.lin(x) * math.sin(x.shape[0] / 2)


@assumes()
class MathFmodOfFloat(Base):
    def forward(self, x):
        return self.lin(x) * math.fmod(x.shape[0] / 2, 2)


@assumes()
class MathIsfinite(Base):
    def forward(self, x):
        return self.lin(x) if math.isclose(x.shape[0] / 2, 1.5) else x


@assumes()
class MathFactorial(Base):
    def forward(self, x):
        return self.lin(x) * math.factorial(x.shape[0]) + math.comb(x.shape[0], 1)


@assumes()
class MathProdOfFloats(Base):
    def forward(self, x):
        return self.lin(x) * math.prod([2.0, *x.shape]) + math.fsum([x.shape[0] / 2, 1.0])


@exact()
class SumOfFloats(Base):
    def forward(self, x):
        return self.lin(x) * sum([0.5, x.shape[0], 1.0])


@exact()
class SumOfManySizes(Base):
    def forward(self, x):
        return self.lin(x) * sum([1, x.shape[0], 2]) + sum(n / 2 for n in x.shape)


@assumes()
class NumpyZeros(Base):
    def forward(self, x):
        return self.lin(x) * np.zeros(x.shape[0]).size


@assumes()
class NumpyReshape(Base):
    def forward(self, x):
        return self.lin(x) * np.ones(60).reshape(x.shape[0], -1).shape[1]


@exact()
class NumpyCompares(Base):
    def forward(self, x):
        return self.lin(x) * (2.0 if np.int64(3) == x.shape[0] else 1.0)


@exact()
class ReversedShape(Base):
    def forward(self, x):
        a, b = reversed(x.shape)
        return self.lin(x).view(x.shape[::-1]) * b, self.lin(x).t().reshape((b, a))


@exact()
class SizesInterpolate(nn.Module):
    def forward(self, x):
        n = x.shape[0]
        y = F.interpolate(x[None, None], scale_factor=n / 2)
        return F.adaptive_avg_pool2d(x[None], (n, 2)), y, F.pad(x, (0, n)), F.pad(x, [n, 1, 0, n])


@exact()
class SizesToSplit(Base):
    def forward(self, x):
        a, b = x.shape[0] // 2, x.shape[0] - x.shape[0] // 2
        y, z = self.lin(x).split([a, b])
        return torch.cat([z, y])


@assumes()
class IteratesKeys(Base):
    def forward(self, x):
        return self.lin(x) * next(iter(dict.fromkeys(x.shape)))


@exact()
class ZipOfShapes(Base):
    def forward(self, x):
        return self.lin(x) * sum(1 for a, b in zip(x.shape, (3, 4), strict=True) if a == b)


@assumes()
class StringJoin(Base):
    def forward(self, x):
        return self.lin(x) * len("x".join(map(str, x.shape)) + "-" * x.shape[0])


@assumes()
class TensorOnListIndex(Base):
    def forward(self, x):
        return self.lin(x) * [p.sum() for p in (x, x * 2, x * 3, x * 4, x * 5, x * 6)][x.shape[0]]


@assumes()
class PopsFromList(Base):
    def forward(self, x):
        return self.lin(x) * [1.0, 2.0, 3.0, 4.0, 5.0, 6.0].pop(x.shape[0])


@assumes()
class GetitemOfModuleSlice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(6)])

    def forward(self, x):
        for layer in self.layers[-x.shape[0] :]:
            x = layer(x)
        return x


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])
