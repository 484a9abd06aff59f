"""Loops that do something else in every n-th turn, and lists with several values of each turn."""

from __future__ import annotations

import pytest
import torch

from plugins.capture.tests.loop_cases import LENGTHS, Base, LoopCases, check_loop

CASES = LoopCases()
case = CASES.case
ODD = [each for each in LENGTHS if each % 2]
NO_FOURS = [each for each in LENGTHS if each % 4]


@case(captured=4, loops=2, but=ODD)
class Alternates(Base):
    def forward(self, x):
        h = x.new_zeros(2, 4)
        out = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h) if t % 2 == 0 else torch.tanh(self.lin(h) + x[:, t])
            out.append(h)
        return torch.stack(out, 1)


@case(captured=4, but=ODD)
class EverySecondOut(Base):
    """Without turn numbers, the turns of the first run are alike."""

    def forward(self, x):
        h = x.new_zeros(2, 4)
        out = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            if t % 2:
                out.append(h)
        return torch.stack(out, 1)


@case(captured=8, loops=2, but=NO_FOURS)
class DetachesEveryFour(Base):
    """Truncated backpropagation through time."""

    def forward(self, x):
        h = x.new_zeros(2, 4)
        out = []
        for t in range(x.shape[1]):
            if t % 4 == 0:
                h = h.detach()
            h = self.cell(x[:, t], h)
            out.append(h)
        return torch.stack(out, 1)


@case(captured=8, only=True, loops=0)
class EveryTenth(Base):
    """The runs of other lengths are compared up to a turn that does something else."""

    def forward(self, x):
        h = x.new_zeros(2, 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h) if t % 2 else torch.tanh(self.lin(h) + x[:, t])
            if t % 10 == 9:
                h = torch.sigmoid(h)
        return h


@case(loops=2)
class TwoOfEachTurn(Base):
    def forward(self, x):
        h = x.new_zeros(2, 4)
        out = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            out.append(h)
            out.append(self.lin(h))
        return torch.stack(out, 1)


@case(loops=3, least=2)
class ThreeBackwards(Base):
    def forward(self, x):
        h = x.new_zeros(2, 4)
        out = []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            out += [h, self.lin(h), h]
        return torch.stack(out[::-1], 1), torch.cat(out[3:], 1)


@CASES.parametrized
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_loop(case, training, tmp_path):
    check_loop(case, training, tmp_path)
