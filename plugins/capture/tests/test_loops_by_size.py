"""Loops whose number of turns follows from a size otherwise than by ``range(size)``."""

from __future__ import annotations

import pytest
import torch

from plugins.capture.tests.loop_cases import Base, LoopCases, check_loop, sequence

CASES = LoopCases()
case = CASES.case


def odd(length):
    return sequence(2 * length + 1)


def rows(length):
    return (torch.randn(2, length, 3, 4),)


@case(loops=2, most=20)
class ListOfNone(Base):
    """The size is the length of a list, and the turns of two loops."""

    def forward(self, x):
        turns = x.shape[1]
        forwards, backwards = [], [None] * turns
        h = k = x.new_zeros(2, 4)
        for t in range(turns):
            h = self.cell(x[:, t], h)
            forwards.append(h)
        for t in range(turns - 1, -1, -1):
            k = torch.tanh(self.lin(x[:, t]) + k)
            backwards[t] = k
        return torch.cat([torch.stack(forwards, 1), torch.stack(backwards, 1)], -1)


@case(odd)
class PairsAfterTheFirst(Base):
    def forward(self, x):
        h = x[:, 0]
        for t in range(1, x.shape[1], 2):
            h = self.cell(x[:, t] - x[:, t + 1], h)
        return h


@case(most=20)
class CountsDown(Base):
    def forward(self, x):
        n, h = x.shape[1], x.new_zeros(2, 4)
        while n > 0:
            n -= 1
            h = self.cell(x[:, n], h)
        return h


@case(most=20)
class TakesAway(Base):
    def forward(self, x):
        h = x.new_zeros(2, 4)
        while x.shape[1] > 0:
            h = self.cell(x[:, 0], h)
            x = x[:, 1:]
        return h


@case(rows, loops=2)
class OfFewRows(Base):
    """The inner loop has three turns, of which the first is special."""

    def forward(self, x):
        return torch.stack(
            [
                torch.stack([self.lin(x[:, t, i]) for i in range(x.shape[2])], 1)
                for t in range(x.shape[1])
            ],
            1,
        )


@case(captured=9)
class LeavesOutTheRest(Base):
    """A last step that is no pair is no turn."""

    def forward(self, x):
        h = x[:, 0]
        for t in range(1, x.shape[1], 2):
            h = self.cell(x[:, t] - x[:, t - 1], h)
        return h


@CASES.parametrized
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_loop(case, training, tmp_path):
    check_loop(case, training, tmp_path)
