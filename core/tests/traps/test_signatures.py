"""Parameters, arguments and results of all kinds."""

# The traps use the code that the linter would rewrite.

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from core.tests.traps.harness import Base, Traps, check

TRAPS = Traps()
exact, assumes, refused = TRAPS.exact, TRAPS.assumes, TRAPS.refused


class Masked(Base):
    def forward(self, x, mask=None, scale=2.0, *, flag="a"):
        y = self.lin(x) * scale
        y = y if mask is None else y * mask
        return y if flag == "a" else -y


_X = torch.randn(3, 4)

# Python counts the arguments of the rebuilt model.
_ARGUMENTS = r"TypeError: forward\(\) (missing|takes|got an unexpected)"


@assumes(
    (_X,),
    [
        ((_X,), {}),
        ((_X, None), {}),
        ((_X, None, 2.0), {"flag": "a"}),
        ((_X, _X), {}),
        ((_X,), {"scale": 3.0}),
        ((_X,), {"flag": "b"}),
        ((), {"x": _X}),
        ((), {}),
        ((_X,), {"bogus": 1}),
        ((_X, None, 2), {}),
        ((_X, None, True), {}),
        ((_X, None, torch.tensor(2.0)), {}),
        ((None,), {}),
    ],
)
class Defaults(Masked):
    pass


@assumes(
    (_X, _X),
    [
        ((_X, _X), {"scale": 3.0, "flag": "b"}),
        ((_X,), {}),
        ((_X, None), {"scale": 3.0, "flag": "b"}),
        ((_X, _X), {}),
        ((_X, _X, 3.0), {"flag": "b"}),
        ((_X, 2.0), {"scale": 3.0, "flag": "b"}),
        ((), {"mask": _X, "x": _X, "flag": "b", "scale": 3.0}),
        ((_X, _X.double()), {"scale": 3.0, "flag": "b"}),
    ],
    kwargs={"scale": 3.0, "flag": "b"},
)
class AllGiven(Masked):
    pass


@assumes(
    (_X, _X, _X),
    [((_X, _X), {}), ((_X, _X, _X, _X), {}), ((_X, 1, _X), {}), ((_X, _X, _X), {"c": _X})],
    loud=_ARGUMENTS,
)
class AnyNumber(Base):
    def forward(self, *inputs, **named):
        return self.lin(sum(inputs)) + sum(named.values())


@assumes(
    (_X,),
    [
        ((_X,), {"a": _X, "b": 2}),
        ((_X,), {"a": _X, "b": 3}),
        ((_X,), {"a": _X}),
        ((_X,), {"a": _X, "b": 2, "c": _X}),
    ],
    kwargs={"a": _X, "b": 2},
    loud=_ARGUMENTS,
)
class AnyNames(Base):
    def forward(self, x, **named):
        for key, value in named.items():
            x = self.lin(x) + value * len(key)
        return x


Pair = namedtuple("Pair", ["left", "right"])


@assumes(
    ([_X, {"a": _X, "b": (2, "s", None)}], Pair(_X, 3)),
    [
        ([_X + 1, {"a": _X, "b": (2, "s", None)}], Pair(_X, 3)),
        ([_X, {"b": (2, "s", None), "a": _X}], Pair(_X, 3)),
        ([_X, {"a": _X, "b": (3, "s", None)}], Pair(_X, 3)),
        ([_X, {"a": _X, "b": (2, "t", None)}], Pair(_X, 3)),
        ([_X, {"a": _X, "b": (2, "s", _X)}], Pair(_X, 3)),
        ([_X, {"a": _X, "b": (2, "s", None)}], Pair(_X, 4)),
        ([_X, {"a": _X, "c": (2, "s", None)}], Pair(_X, 3)),
        ([_X, {"a": _X}], Pair(_X, 3)),
        ([_X, {"a": None, "b": (2, "s", None)}], Pair(_X, 3)),
        ((_X, {"a": _X, "b": [2, "s", None]}), (_X, 3)),
        ([_X, _X], Pair(_X, 3)),
    ],
)
class Nested(Base):
    def forward(self, parts, pair):
        x, more = parts
        n, s, extra = more["b"]
        y = self.lin(x) * n + more["a"] * len(s) + pair.left * pair.right
        return y if extra is None else y + extra


@assumes(({"b": _X, "a": _X + 1},), [({"a": _X + 1, "b": _X},), ({"b": _X, "a": _X},)])
class OrderOfDict(Base):
    def forward(self, parts):
        x = 0
        for index, value in enumerate(parts.values()):
            x = x + self.lin(value) * index
        return x


@assumes(([_X],), [([_X, _X],), ((_X,),), (_X[None],)])
class KindOfContainer(Base):
    def forward(self, parts):
        return self.lin(parts[0]) if isinstance(parts, list) else parts[0] * 2


@assumes(
    (torch.randn(3, 4),),
    [(torch.randn(3, 4).tolist(),), (np.zeros((3, 4)),), (None,), (3,)],
    loud="Could not infer dtype of NoneType",
)
class NotATensor(nn.Module):
    def forward(self, x):
        return torch.as_tensor(x) * 2 if x is not None else torch.zeros(1)


@exact(
    (torch.randn(3, 4, requires_grad=True),),
    [(torch.randn(3, 4),), (torch.randn(5, 4, requires_grad=True),)],
)
class InputWithGradient(Base):
    def forward(self, x):
        return self.lin(x) * x


@exact(
    (torch.randn(4, 3).t(),),
    [(torch.randn(3, 4),), (torch.randn(5, 4),), (torch.randn(3, 8)[:, ::2],)],
)
class NotContiguous(Base):
    def forward(self, x):
        return self.lin(x), x * 2, x + x.contiguous(), torch.empty_like(x).fill_(1), x.reshape(-1)


@exact(
    (torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last),),
    [(torch.randn(2, 3, 5, 5),), (torch.randn(1, 3, 7, 7).to(memory_format=torch.channels_last),)],
)
class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x), x * 2, x.flatten(1)


@exact(
    (torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last),),
    [(torch.randn(2, 3, 5, 5),)],
)
class AsksFormat(nn.Module):
    def forward(self, x):
        last = x.is_contiguous(memory_format=torch.channels_last)
        return x * 2 if last else x * 3


@exact((torch.randn(0, 4),), [(torch.randn(3, 4),), (torch.randn(1, 4),)])
class ZeroSize(Base):
    def forward(self, x):
        return self.lin(x).view(x.shape[0], 4) + x.sum()


@exact((torch.tensor(2.0),), [(torch.tensor(-3.0),)])
class ZeroDim(nn.Module):
    def forward(self, x):
        return x * 2, x.view(1), x[None], 3 / x, x**2


@assumes((torch.tensor(2.0),), [(torch.tensor([2.0, 3.0]),), (torch.randn(2, 2, 2),)])
class Rank(nn.Module):
    def forward(self, x):
        if x.dim() == 0:
            x = x[None]
        elif x.ndim == 1:
            x = x * 5
        return x * len(x.shape)


@assumes((torch.randn(2, 3),), [(torch.randn(3),), (torch.randn(1, 2, 3),)])
class RankByShape(nn.Module):
    def forward(self, x):
        return x * len(x.shape) + len(x.size())


@assumes((torch.randn(2, 3),), [(torch.randn(3),), (torch.randn(1, 2, 3),)])
class RankByLastSize(nn.Module):
    def forward(self, x):
        return x.reshape(-1, x.shape[-1]) * x.stride(-1) + x.shape[-1]


@assumes((torch.randn(2, 3),), [(torch.randn(1, 2, 3),)])
class RankOfResult(nn.Module):
    def forward(self, x):
        y = x.sum(0)
        return y * 2 if y.dim() == 1 else y * 3


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).double(),), (torch.ones(3, 4).long(),)])
class DtypeBranch(nn.Module):
    def forward(self, x):
        return x * 2 if x.dtype == torch.float32 else x.double() * 3


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).double(),), (torch.ones(3, 4).long(),)])
class DtypeOfResult(nn.Module):
    def forward(self, x):
        y = x + 1
        return y * 2 if y.dtype is torch.float32 else y * 3


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).double(),), (torch.ones(3, 4).long(),)])
class DtypeOtherwise(nn.Module):
    def forward(self, x):
        y = x * 2 if x.is_floating_point() else x * 3
        return y + torch.finfo(y.dtype).max * 0 if torch.is_floating_point(y) else y


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).double(),), (torch.randn(3, 4).bfloat16(),)])
class DtypeUsed(nn.Module):
    def forward(self, x):
        return torch.zeros(4, dtype=x.dtype) + x, torch.ones(3).to(x), torch.ones(3).type_as(x)


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).double(),), (torch.randn(3, 4).bfloat16(),)])
class FinfoOfDtype(nn.Module):
    def forward(self, x):
        return x.masked_fill(x > 0, torch.finfo(x.dtype).min)


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).double(),)])
class TypeByName(nn.Module):
    def forward(self, x):
        return x * 2 if x.type() == "torch.FloatTensor" else x * 3


@assumes((torch.randn(3, 4),), [(torch.randn(3, 4).double(),)])
class ItemSize(nn.Module):
    def forward(self, x):
        return x * x.element_size() + x.itemsize + x.nbytes


@exact((torch.randn(3, 4, dtype=torch.complex64),), [(torch.randn(5, 4, dtype=torch.complex64),)])
class Complex(nn.Module):
    def forward(self, x):
        y = torch.view_as_real(x)
        y[..., 0] += 1
        return x.real, x.imag, x.conj() * 2j, torch.fft.fft(x), x.abs(), y, x.angle()


@exact((torch.tensor([True, False, True]),), [(torch.tensor([False, False]),)])
class Bools(nn.Module):
    def forward(self, x):
        return ~x, x & x, x.sum(), x.float(), x | True, x ^ x, x.any(), torch.zeros(len(x.shape))


@exact((torch.ones(3, 4, dtype=torch.int8),), [(torch.ones(5, 4, dtype=torch.int8) * 3,)])
class Int8(nn.Module):
    def forward(self, x):
        return x + 1, x // 2, x / 2, x << 1, x * x, 2 - x, x.float() @ x.float().t()


@exact((torch.randn(3, 4, dtype=torch.bfloat16),), [(torch.randn(5, 4, dtype=torch.bfloat16),)])
class BFloat(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4).bfloat16()

    def forward(self, x):
        return self.lin(x), x.float() + 1, torch.softmax(x, -1)


@dataclass
class Result:
    logits: torch.Tensor
    hidden: Any = None
    more: list = field(default_factory=list)


class Special(OrderedDict):
    pass


@exact()
class Outputs(Base):
    def forward(self, x):
        y = self.lin(x)
        return {
            "list": [y, (x, None, 3, 2.5, "text", True)],
            "pair": Pair(y, x),
            "data": Result(y, (x,), [1, y]),
            "special": Special(a=y),
            "dtype": y.dtype,
            "shape": y.shape,
            5: y + 1,
        }


@exact()
class ReturnsNothing(Base):
    def forward(self, x):
        self.lin(x)


@exact()
class ReturnsConstants(Base):
    def forward(self, x):
        return 3, "text", [1.5, None], {"a": True}


@exact()
class ReturnsParameter(Base):
    def forward(self, x):
        return self.lin.weight, self.lin.bias, self.lin(x), x


@exact()
class ReturnsEmpty(Base):
    def forward(self, x):
        return self.lin(x), (), [], {}


@refused("Special", placed=False)
class ReturnsNoneInASubclass(Base):
    def forward(self, x):
        return Special(a=self.lin(x), b=None)


@refused("set", placed=False)
class ReturnsSetOfTensors(Base):
    def forward(self, x):
        return {self.lin(x)}


@refused("function|lambda", placed=False)
class ReturnsFunction(Base):
    def forward(self, x):
        return self.lin(x), lambda: 3


@refused("ndarray|numpy", placed=False)
class ReturnsArray(Base):
    def forward(self, x):
        return self.lin(x), np.ones(3)


@exact()
class ReturnsTorchStruct(Base):
    def forward(self, x):
        return torch.max(self.lin(x), 1), x.sort(), torch.linalg.qr(x), x.topk(2)


@exact()
class ReturnsDevice(Base):
    def forward(self, x):
        return self.lin(x), x.device.type


@exact()
class TakesBack(Base):
    def forward(self, x):
        y = self.lin(x)
        return y, y.shape == x.shape, len(y)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])
