"""Loops whose turns compute with numbers, repeat something inside, or keep a state in an object."""

# What the linter would have written otherwise are the traps.

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import pytest
import torch
from torch import nn

from layergraph_capture.loops.frame_state import is_plain
from plugins.capture.tests.loop_cases import Base, LoopCases, check_loop

CASES = LoopCases()
case = CASES.case


@case()
class RepeatsInside(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        for t in range(x.shape[1]):
            for _ in range(2):
                h = torch.tanh(self.lin(x[:, t]) + h)
        return h


@case()
class RepeatsAndCollects(Base):
    def forward(self, x):
        h, o = torch.zeros(2, 4), []
        for t in range(x.shape[1]):
            for k in range(3):
                h = torch.tanh(self.lin(x[:, t]) + h * (k + 1))
            o.append(h)
        return torch.stack(o, 1), h


@case()
class Decays(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        for t in range(x.shape[1]):
            h = h + self.lin(x[:, t]) * 0.9**t
        return h


@case()
class Swings(Base):
    def forward(self, x):
        h = torch.zeros(2, 4)
        for t in range(x.shape[1]):
            h = h + self.lin(x[:, t]) * (math.sin(t) + math.cos(math.pi * t / x.shape[1]))
        return h


@dataclasses.dataclass
class State:
    h: torch.Tensor
    c: torch.Tensor
    left: int = 24


class Both(NamedTuple):
    h: torch.Tensor
    c: torch.Tensor


@case()
class OfDataclasses(Base):
    def forward(self, x):
        s = State(torch.zeros(2, 4), torch.zeros(2, 4))
        for t in range(x.shape[1]):
            s = State(self.cell(x[:, t], s.h), s.c + s.h)
        return s.h, s.c


@case()
class OfNamedTuples(Base):
    def forward(self, x):
        s = Both(torch.zeros(2, 4), torch.zeros(2, 4))
        for t in range(x.shape[1]):
            s = Both(self.cell(x[:, t], s.h), s.c + s.h)
        return s.h, s.c


# It does something else from a turn on that no run has.
@case(most=20)
class ChangesItsKind(Base):
    def forward(self, x):
        s = State(torch.zeros(2, 4), torch.zeros(2, 4))
        for t in range(x.shape[1]):
            s = State(self.cell(x[:, t], s.h), s.c + s.h, s.left - 1)
            if s.left < 0:
                s.h = s.h * 2
        return s.h, s.c


# A state that only looks the same: what it is equal to counts for nothing.
@case(most=8)
class TakesTurns(Base):
    def forward(self, x):
        states = [[i] for i in range(30)]
        h = torch.zeros(2, 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            states.pop()
            if len(states) < 22:
                h = h * 2
        return h


@case(loops=2)
class FirstOfParts(Base):
    def __init__(self):
        super().__init__()
        self.long = nn.LSTMCell(4, 4)

    def forward(self, x):
        state = None
        for each in x.unbind(1):
            state = self.long(each, state)
        return state


# It uses the second part before the first one.
@case(loops=2)
class SecondPartFirst(Base):
    def forward(self, x):
        parts = x.unbind(1)
        h = parts[0]
        for t in range(1, len(parts)):
            h = self.cell(parts[t], h)
        return h


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@CASES.parametrized
def test_a_loop_of_numbers_and_objects(case, training, tmp_path):
    check_loop(case, training, tmp_path)


def test_settings_that_contain_themselves_are_plain():
    settings = {"scale": 0.5}
    settings["itself"] = [settings]
    assert is_plain([settings])
    settings["layer"] = nn.Linear(1, 1)
    assert not is_plain([settings])
