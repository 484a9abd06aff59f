"""Code behind a loop that depends on its number of turns: guarded, or refused by name."""

# What the linter would have written otherwise are the traps.
# ruff: noqa: B007, PERF401

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import LayergraphError
from layergraph.testing import bitwise_equal
from plugins.capture.tests.loop_cases import Base, LoopCases, check_loop

CASES = LoopCases()
case = CASES.case


@case(most=6)
class LenAfter(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            o.append(h)
        if len(o) > 6:
            h = h * 2
        return h


@case(most=7)
class LastTAfter(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        if t > 6:
            h = h * 2
        return h


@case(but=[9])
class LastTurnEquals(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        if t == 8:
            h = h * 2
        return h


@case(but=[9])
class LengthEquals(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            o.append(h)
        if len(o) == 9:
            h = h * 2
        return h


@case(loops=0, only=True)
class TurnAsKey(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            o.append(h)
        return h * t + {8: 1.0}.get(t, 0)


@case(but=[9])
class LengthModulo(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            o.append(h)
        return h * len(o) + (1 if len(o) % 9 == 0 else 0)


@case(loops=0, only=True)
class LengthAsIndex(Base):
    def forward(self, x):
        o = [self.lin(x[:, t]) for t in range(x.shape[1])]
        n = len(o)
        w = [1.0] * 8 + [3.0] * 100
        return torch.stack(o) * w[n]


@case(most=8)
class CounterAfter(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        n = 0
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            n += 1
        return h * 2 if n == 9 else h


@case(loops=2, most=8)
class IntAfter(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        n = 0
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            n += t
        return h * 2 if n == 36 else h


@case(most=8)
class RangeLen(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        r = range(x.shape[1])
        for t in r:
            h = self.cell(x[:, t], h)
        return h * 2 if len(r) == 9 else h


@case(most=8)
class RangeStop(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        r = range(x.shape[1])
        for t in r:
            h = self.cell(x[:, t], h)
        return h * 2 if r.stop == 9 else h


@case(most=8)
class TupleLen(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = ()
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            o += (h,)
        return h * 2 if len(o) == 9 else h


@case(most=8)
class DictLen(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = {}
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            o[t] = h
        return h * 2 if len(o) == 9 else h


@case(loops=2, but=[9])
class UnbindLen(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = x.unbind(1)
        for a in o:
            h = self.cell(a, h)
        return h * 2 if len(o) == 9 else h


@case(loops=2, most=8)
class LengthOfListOfParts(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = list(x.unbind(1))
        for t in range(x.shape[1]):
            h = self.cell(o[t], h)
        return h * 2 if o.__len__() == 9 else h


@case(most=8)
class ListOfTurnsEquals(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            o.append(t)
        return h * 2 if o == list(range(9)) else h


@case(most=8)
class LengthOfListOfTurns(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            o.append(t)
        return h * 2 if len(o) == 9 else h


@case(most=8)
class SliceIsEmpty(Base):
    def forward(self, x):
        o = []
        for t in range(x.shape[1]):
            o.append(self.lin(x[:, t]))
        if o[8:9]:
            return o[0] * 2
        return o[0]


@case(most=8)
class IndexThatFails(Base):
    def forward(self, x):
        o = []
        for t in range(x.shape[1]):
            o.append(self.lin(x[:, t]))
        try:
            return o[8] * 2
        except IndexError:
            return o[0]


@case(loops=2, most=8)
class SumOfTurns(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            o.append(t)
        return h * 2 if sum(o) == 36 else h


@case(loops=2, but=[9])
class EnumLen(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for i, a in enumerate(x.unbind(1)):
            h = self.cell(a, h)
        return h * 2 if i == 8 else h


@case(most=8)
class LastEight(Base):
    def forward(self, x):
        o = []
        for t in range(x.shape[1]):
            o.append(self.lin(x[:, t]))
        return torch.stack(o[-8:])


@case(loops=0, only=True)
class SizeAsKey(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return h * {9: 2.0}.get(x.shape[1], 1.0)


@case(most=8)
class RangeSlice(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1])[:8]:
            h = self.cell(x[:, t], h)
        return h


@case(most=11)
class BranchLater(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            if t * 2 == 22:
                h = h * 2
        return h


@case(loops=0, only=True)
class TurnTimesSizeAsIndex(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        w = [1.0] * 30 + [2.0] * 100
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h) * w[t * x.shape[1]]
        return h


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@CASES.parametrized
def test_code_behind_a_loop(case, training, tmp_path):
    check_loop(case, training, tmp_path)


class FewTurns(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


def _last_or_input(self, x):
    last = None
    for t in range(x.shape[0] - 1):
        last = self.lin(x[t])
    return x if last is None else last


def _sum_of_pairs(self, x):
    return sum(self.lin(one) * other for one, other in itertools.pairwise(x))


def _shrinking(self, x):
    y = x.sum(0)
    for _ in range(abs(9 - x.shape[0])):
        y = self.lin(y)
    return y


FEW_TURNS = {
    "an empty list is None": lambda self, x: [self.lin(x[t]) for t in range(len(x) - 1)] or None,
    "nothing was computed": _last_or_input,
    "pairs": _sum_of_pairs,
    "fewer for more": _shrinking,
    "parts": lambda self, x: torch.stack([self.lin(x[t : t + 2].sum(0)) for t in _by_two(x)]),
    "of an empty sequence": lambda self, x: sum(
        (self.lin(one) for one in x[1:]), x.new_zeros(2, 4)
    ),
}
# The lengths of which the rebuilt model does the same; of others it says that it has not seen them.
SEEN = {"fewer for more": range(9), "of an empty sequence": range(9), "parts": range(1, 9)}


def _by_two(x):
    return range(0, x.shape[0], 2)


@pytest.mark.parametrize("name", FEW_TURNS)
def test_few_turns_or_none(name):
    model = FewTurns(FEW_TURNS[name])
    again = lg.to_torch(lg.to_ir(model, (torch.randn(4, 2, 4),)), model.state_dict())
    for length in range(9):
        x = torch.randn(length, 2, 4)
        if length in SEEN.get(name, range(2, 9)):
            assert bitwise_equal(again(x), model(x)), length
        else:
            with pytest.raises(LayergraphError):
                again(x)
