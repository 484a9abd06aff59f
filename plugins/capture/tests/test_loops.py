"""Loops over a size: one capture serves other lengths, bit for bit, or refuses them by name."""

# What the linter would have written otherwise are the traps.
# ruff: noqa: B007, B905, PERF401, SIM113

from __future__ import annotations

import itertools
from collections import deque

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from plugins.capture.tests.loop_cases import Base, LoopCases, check_loop

CASES = LoopCases()
case = CASES.case


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(4, 4)
        self.n = nn.LayerNorm(4)

    def forward(self, x, h):
        return self.n(self.l(x) + h).relu()


@case(loops=2)
class UnbindIter(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for xt in x.unbind(1):
            h = self.cell(xt, h)
            o.append(h)
        return torch.stack(o, 1)


@case(lambda length: (torch.randn(length, 2, 4),), loops=2)
class TensorIter(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        o = []
        for xt in x:
            h = self.cell(xt, h)
            o.append(h)
        return torch.stack(o)


@case()
class FirstSpecial(Base):
    def forward(self, x):
        h = None
        o = []
        for t in range(x.size(1)):
            if h is None:
                h = self.lin(x[:, t])
            h = self.cell(x[:, t], h)
            o.append(h)
        return torch.stack(o, 1)


@case(captured=5)
class LastSpecial(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            if t == x.size(1) - 1:
                h = self.lin(h)
        return h


@case()
class Reversed(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for t in reversed(range(x.size(1))):
            h = self.cell(x[:, t], h)
            o.insert(0, h)
        return torch.stack(o, 1)


@case()
class ReversedList(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for t in range(x.size(1) - 1, -1, -1):
            h = self.cell(x[:, t], h)
            o.append(h)
        return torch.stack(o[::-1], 1)


@case()
class InPlaceSlice(Base):
    def forward(self, x):
        out = torch.zeros_like(x)
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            out[:, t] = h
        return out


@case()
class Cumulative(Base):
    def forward(self, x):
        acc = x[:, 0] * 0
        for t in range(x.shape[1]):
            acc = acc + self.lin(x[:, t])
        return acc / x.shape[1]


@case()
class InPlaceAdd(Base):
    def forward(self, x):
        acc = torch.zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            acc += self.lin(x[:, t])
        return acc


@case(most=20)
class GrowingCat(Base):
    def forward(self, x):
        feats = [x[:, 0]]
        for t in range(x.shape[1]):
            feats.append(self.lin(torch.stack(feats, 0).sum(0)))
        return torch.stack(feats, 1)


@case(loops=2, most=20)
class TwoLoops(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            o.append(h)
        h = x.new_zeros(x.shape[0], 4)
        p = []
        for v in reversed(o):
            h = self.cell(v, h)
            p.append(h)
        p.reverse()
        return (torch.stack(p, 1), o[0], o[-1])


@case(loops=3)
class Nested(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for t in range(x.shape[1]):
            for u in range(x.shape[1]):
                h = self.cell(x[:, u], h)
            o.append(h)
        return torch.stack(o, 1)


@case(lambda length: (torch.randn(length, 3, 4),), loops=2)
class NestedTwo(Base):
    def forward(self, x):
        rows = []
        for b in range(x.shape[0]):
            h = torch.zeros(4)
            for t in range(x.shape[1]):
                h = torch.tanh(self.lin(x[b, t]) + h)
            rows.append(h)
        return torch.stack(rows)


@case(least=2)
class Window(Base):
    def forward(self, x):
        o = []
        for t in range(x.shape[1]):
            o.append(x[:, max(0, t - 1) : t + 1].mean(1))
        return torch.stack(o, 1)


@case(lambda length: (torch.randn(2, length * 3, 4),))
class Chunks(Base):
    def forward(self, x):
        o = []
        for i in range(0, x.shape[1], 3):
            o.append(self.lin(x[:, i : i + 3]).sum(1))
        return torch.stack(o, 1)


@case()
class Dropout(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for t in range(x.shape[1]):
            h = F.dropout(self.cell(x[:, t], h), 0.5, self.training)
            o.append(h)
        return torch.stack(o, 1)


@case()
class RandomInBody(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h) + torch.rand(4)
        return h


@case(most=6)
class EarlyExit(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            if t > 5:
                break
            h = self.cell(x[:, t], h)
        return h


@case(most=20)
class While(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        t = 0
        while t < x.shape[1]:
            h = self.cell(x[:, t], h)
            t += 1
        return h


@case()
class TupleState(Base):
    def forward(self, x):
        st = (x[:, 0] * 0, {"a": x[:, 0] * 1})
        for t in range(x.shape[1]):
            a = self.cell(x[:, t], st[0])
            st = (a, {"a": st[1]["a"] + a})
        return st


@case()
class Lag2(Base):
    def forward(self, x):
        o = [x[:, 0], x[:, 0] * 2]
        for t in range(x.shape[1]):
            o.append(self.lin(o[-1] + o[-2]))
        return torch.stack(o, 1)


@case()
class TwoModules(nn.Module):
    def __init__(self):
        super().__init__()
        self.b = Block()

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for t in range(x.shape[1]):
            h = self.b(x[:, t], h)
            o.append(h)
        return torch.stack(o, 1)


@case(loops=5)
class InnerModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.r = UnbindIter()
        self.q = Dropout()

    def forward(self, x):
        return self.q(self.r(x)) + self.r(x)


@case()
class ListOut(Base):
    def forward(self, x):
        return [self.lin(x[:, t]) for t in range(x.shape[1])]


@case()
class TupleOut(Base):
    def forward(self, x):
        return tuple(self.lin(x[:, t]) for t in range(x.shape[1]))


@case()
class IndexTensor(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = h + self.lin(x[:, t]) * torch.full((4,), t)
        return h


@case()
class FloatIndex(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = h + self.lin(x[:, t]) * (t / x.shape[1])
        return h


@case(but=[1, 3, 5, 7, 9])
class Alternating(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h) if t % 2 == 0 else self.lin(h)
        return h


@case()
class Minus(Base):
    def forward(self, x):
        o = []
        for t in range(x.shape[1] - 1):
            o.append(x[:, t + 1] - x[:, t])
        return torch.stack(o, 1)


@case()
class Swap(Base):
    def forward(self, x):
        a = x[:, 0]
        b = x[:, 0] * 2
        for t in range(x.shape[1]):
            a, b = (b, self.cell(x[:, t], a))
        return (a, b)


@case()
class Mode(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            if self.training:
                h = h * 2
        return h


@case()
class Mask(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        m = x.abs().sum(-1) > 2
        for t in range(x.shape[1]):
            n = self.cell(x[:, t], h)
            h = torch.where(m[:, t, None], n, h)
        return h


@case(lambda length: (torch.randn(2, length, 4), torch.ones(2, length)))
class TwoInputs(Base):
    def forward(self, x, m):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h) * m[:, t : t + 1]
        return h


@case(lambda length: (torch.randn(2, length, 4),), loops=3)
class Zip(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for i, (a, b) in enumerate(zip(x.unbind(1), (x * 2).unbind(1))):
            h = self.cell(a + b, h) * i
        return h


@case(lambda length: (torch.randn(2, length, 4),), loops=2)
class Split(Base):
    def forward(self, x):
        o = []
        for c in x.split(1, 1):
            o.append(self.lin(c))
        return torch.cat(o, 1)


@case(lambda length: (torch.randn(2, 4, length + 2),))
class ConvLen(Base):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv1d(4, 4, 3)

    def forward(self, x):
        y = self.c(x)
        h = torch.zeros(x.shape[0], 4)
        for t in range(y.shape[2]):
            h = self.cell(y[..., t], h)
        return h


@case(lambda length: (torch.randn(length, 4),))
class SquareWeights(Base):
    def forward(self, x):
        h = torch.zeros(4)
        for t in range(x.shape[0]):
            h = torch.tanh(self.lin(x[t]) + h)
        return h


@case()
class NoGradInside(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            with torch.no_grad():
                g = self.lin(x[:, t])
            h = self.cell(x[:, t], h) + g
        return h


@case()
class BatchNormInside(Base):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(4)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = self.bn(self.cell(x[:, t], h))
        return h


@case()
class EveryOther(Base):
    def forward(self, x):
        o = []
        for t in range(0, x.shape[1], 2):
            o.append(self.lin(x[:, t]))
        return torch.stack(o, 1)


@case()
class OnlyLastOut(Base):
    def forward(self, x):
        o = [self.lin(x[:, t]) for t in range(x.shape[1])]
        return o[-1] + o[0]


@case()
class SizeInside(Base):
    def forward(self, x):
        o = []
        for t in range(x.shape[1]):
            o.append(x[:, t].reshape(x.shape[0], 2, -1).sum(1) * (x.shape[1] - t))
        return torch.stack(o, 1)


@case(loops=0, only=True)
class Triangular(Base):
    def forward(self, x):
        o = []
        for t in range(x.shape[1]):
            h = x[:, 0] * 0
            for u in range(t + 1):
                h = h + x[:, u]
            o.append(h)
        return torch.stack(o, 1)


@case(loops=2, most=6)
class Counter(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        i = 0
        for xt in x.unbind(1):
            i += 1
            if i > 6:
                break
            h = self.cell(xt, h)
        return h


@case(loops=2, most=20)
class CounterFine(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        i = 0
        o = torch.zeros_like(x)
        for xt in x.unbind(1):
            h = self.cell(xt, h)
            o[:, i] = h
            i += 1
        return o


@case(most=6)
class LenList(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        o = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            o.append(h)
            if len(o) > 6:
                h = h * 0
        return torch.stack(o, 1)


@case(most=7)
class Buffer(Base):
    def forward(self, x):
        o = []
        b = []
        for t in range(x.shape[1]):
            b.append(x[:, t])
            if len(b) > 7:
                b.pop(0)
            o.append(self.lin(torch.stack(b).sum(0)))
        return torch.stack(o, 1)


@case(most=8)
class Deque(Base):
    def forward(self, x):
        o = []
        b = deque(maxlen=8)
        for t in range(x.shape[1]):
            b.append(x[:, t])
            o.append(self.lin(torch.stack(list(b)).sum(0)))
        return torch.stack(o, 1)


@case(loops=0, only=True)
class DequeShort(Base):
    def forward(self, x):
        o = []
        b = deque(maxlen=2)
        for t in range(x.shape[1]):
            b.append(x[:, t])
            o.append(self.lin(torch.stack(list(b)).sum(0)))
        return torch.stack(o, 1)


@case(most=7)
class IntT(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            if int(t) > 6:
                h = h * 0
        return h


@case(loops=2, most=7)
class EnumT(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        for t, xt in enumerate(x.unbind(1)):
            if t >= 7:
                break
            h = self.cell(xt, h)
        return h


@case(loops=2, most=8)
class Islice(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        for xt in itertools.islice(x.unbind(1), 8):
            h = self.cell(xt, h)
        return h


@case(loops=2)
class ListIndex(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        xs = x.unbind(1)
        for t in range(x.shape[1]):
            h = self.cell(xs[t], h)
        return h


@case(loops=2, most=8)
class SliceList(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        for xt in x.unbind(1)[:8]:
            h = self.cell(xt, h)
        return h


@case()
class MinLen(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        for t in range(min(x.shape[1], 8)):
            h = self.cell(x[:, t], h)
        return h


@case(loops=2, most=7)
class ZipConst(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        for xt, w in zip(x.unbind(1), [1.0] * 7 + [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]):
            h = self.cell(xt, h) * w
        return h


@case(most=7)
class DictIndex(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        d = {7: 2.0}
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h) * d.get(t, 1.0)
        return h


@case(most=7)
class ConstList(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        w = [1.0] * 7 + [2.0] * 20
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h) * w[t]
        return h


@case(most=7)
class Chain(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        done = False
        k = 10
        for t in range(x.shape[1]):
            k = k - 1
            if k == 2:
                done = True
            if done:
                h = h * 2
            h = self.cell(x[:, t], h)
        return h


@case(loops=2, most=8)
class Gen(Base):
    def gen(self, x):
        n = 0
        for xt in x.unbind(1):
            yield xt
            n = n + 1
            if n == 8:
                return

    def forward(self, x):
        h = torch.zeros(2, 4)
        for xt in self.gen(x):
            h = self.cell(xt, h)
        return h


@case(most=7)
class Schedule(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h) * (0.5 if t < 7 else 0.25)
        return h


@case(most=7)
class MaxT(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        for t in range(x.shape[1]):
            h = h + x[:, min(t, 6)]
        return h


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@CASES.parametrized
def test_a_loop(case, training, tmp_path):
    check_loop(case, training, tmp_path)
