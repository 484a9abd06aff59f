"""Buffers that say whether the first call has been: code asks them, and sets them in place."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal


class Norm(nn.Module):
    """As the layers of normalizing flows, which take their scale from the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("initialized", torch.tensor(False))
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        if not self.initialized:
            self.initialize(x)
        return x * self.scale

    def initialize(self, x):
        with torch.no_grad():
            self.scale.copy_(1 / (x.std(0) + 1e-3))
            self.initialized.fill_(True)


class InTraining(Norm):
    def forward(self, x):
        if self.training and self.initialized == 0:
            self.initialize(x)
        return x * self.scale


class OfANumber(Norm):
    def forward(self, x):
        if self.initialized.item() == 0:
            self.initialize(x)
        return x * self.scale


class Counts(Norm):
    """Warms up for two calls."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        self.calls += 1
        if bool(self.calls < 3):
            return x * self.calls
        return x * self.scale


class Inside(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.lin, self.second = Norm(), nn.Linear(4, 4), Norm()

    def forward(self, x):
        return self.second(self.lin(self.first(x)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cls", [Norm, InTraining, OfANumber, Counts, Inside])
def test_the_first_call_and_those_that_follow(cls, training, tmp_path):
    model, x = cls().train(training), torch.randn(3, 4)
    ir = lg.to_ir(model, (x,))
    path = tmp_path / "model.safetensors"
    lg.save(ir, path, model.state_dict())
    ways = [lg.to_torch(ir, model.state_dict()), lg.load_model(path)]
    for way in [each.train(training) for each in ways]:
        original = copy.deepcopy(model)
        for size in (3, 5, 2, 4):
            given = torch.randn(size, 4)
            assert bitwise_equal(original(given), way(given))
            assert bitwise_equal(dict(original.state_dict()), dict(way.state_dict()))


def test_a_flag_that_no_call_changes_is_a_guard():
    model, x = Norm(), torch.randn(3, 4)
    model(x)
    ir = lg.to_ir(model, (x,))
    built = lg.to_torch(ir, model.state_dict())
    assert torch.equal(built(x), model(x))
    built.initialized.fill_(False)
    with pytest.raises(AssumptionError, match="initialized"):
        built(x)
