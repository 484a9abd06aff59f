"""Models that keep tables for later calls: each call of the rebuilt model computes them."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

import layergraph as lg
from core.tests.traps.harness import Base
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal


def table(count: int) -> torch.Tensor:
    return torch.outer(torch.arange(count).float(), torch.tensor([1.0, 0.5, 0.25, 0.125]))


class Longest(Base):
    """It keeps the table of the longest input so far, and of shorter ones reads the beginning."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", None, persistent=False)

    def forward(self, x):
        count = x.shape[1]
        if self.table is None or self.table.shape[0] < count:
            self.table = table(count)
        return self.lin(x) * self.table[:count].cos()


class Last(Base):
    """It keeps the table of the last length, computed from a buffer, and that length."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.tensor([1.0, 0.1, 0.01, 0.001]))
        self.count = None
        self.cos = None

    def forward(self, x):
        if x.shape[1] != self.count:
            self.count = x.shape[1]
            self.cos = torch.outer(torch.arange(self.count).type_as(x), self.steps).cos()
        return self.lin(x) + self.cos


class Filled(Base):
    """It writes the table into a buffer, and notes up to which length."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.zeros(64, 4), persistent=False)
        self.steps = nn.Parameter(torch.rand(4), requires_grad=False)
        self.filled = 0

    def forward(self, x):
        count = x.shape[1]
        if count <= self.filled:
            return self.lin(x) * self.table[:count].detach()
        new = torch.arange(count).float()[:, None] * self.steps
        self.table[:count] = new.detach()
        self.filled = count
        return self.lin(x) * new


class Biases(Base):
    """It keeps the biases of attention, and reads the end of them."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.bias = None

    def bias_of(self, count):
        if self.bias is not None and self.bias.shape[-1] >= count:
            return self.bias[..., -count:, -count:]
        places = torch.arange(count)
        slopes = torch.tensor([0.5, 0.25])[:, None, None]
        self.bias = -(places[None, :] - places[:, None]).abs() * slopes
        return self.bias

    def forward(self, x):
        y = self.drop(self.lin(x))[:, None]
        return (y @ y.mT + self.bias_of(x.shape[1])).softmax(-1) @ y


ORDERS = [(9, 3, 7, 6), (3, 9, 4)]


@pytest.mark.parametrize("make", [Longest, Last, Filled, Biases])
@pytest.mark.parametrize("training", [True, False])
def test_a_table_is_computed_in_each_call(make, training, tmp_path):
    model = make().train(training)
    before = {**vars(model), **model._buffers}
    ir = lg.to_ir(model, (torch.rand(2, 6, 4),))
    assert all(before[key] is each for key, each in {**vars(model), **model._buffers}.items())
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    for order, mode in itertools.product(ORDERS, (True, False)):
        original = copy.deepcopy(model).train(mode)
        rebuilt = lg.to_torch(ir, model.state_dict()).train(mode)
        loaded = lg.load_model(tmp_path / "m.safetensors").train(mode)
        assert list(rebuilt.state_dict()) == list(model.state_dict())
        for count in order:
            x = torch.rand(3, count, 4)
            results = []
            for each in (original, rebuilt, loaded):
                torch.manual_seed(count)
                given = each(x)
                (gradient,) = torch.autograd.grad(given.square().sum(), each.lin.weight)
                results.append((given, gradient))
            assert bitwise_equal(results[0], results[1])
            assert bitwise_equal(results[0], results[2])


class Scaled(Base):
    """The numbers of the table depend on its length, so the longest input so far matters."""

    def __init__(self):
        super().__init__()
        self.table = None

    def forward(self, x):
        count = x.shape[1]
        if self.table is None or self.table.shape[0] < count:
            self.table = torch.linspace(0, 1, count)[:, None]
        return self.lin(x) * self.table[:count]


class First(Base):
    """The batch of the first call decides about later ones."""

    def __init__(self):
        super().__init__()
        self.table = None

    def forward(self, x):
        if self.table is None:
            self.table = torch.ones(x.shape[0])
        return self.lin(x) * (2 if x.shape[0] > self.table.shape[0] else 1)


class Trained(Base):
    """The table follows from a trained weight: later changes of the weight do not change it."""

    def __init__(self):
        super().__init__()
        self.table = None

    def forward(self, x):
        if self.table is None or self.table.shape[0] < x.shape[1]:
            self.table = table(x.shape[1]) * self.lin.bias.detach()
        return self.lin(x) * self.table[: x.shape[1]]


class OfInputs(Base):
    """The table follows from the first input."""

    def __init__(self):
        super().__init__()
        self.table = None

    def forward(self, x):
        if self.table is None or self.table.shape[0] < x.shape[1]:
            self.table = (x[0] > 0) * table(x.shape[1])
        return self.lin(x) * self.table[: x.shape[1]]


class Selected(Base):
    """The length of the table is a number of the first input."""

    def __init__(self):
        super().__init__()
        self.table = None

    def forward(self, x):
        if self.table is None or self.table.shape[0] < x.shape[1] - 9:
            self.table = torch.ones(x[x > 0.5].shape[0])
        return self.lin(x) + self.table.sum()


class Random(Base):
    """The table is random."""

    def __init__(self):
        super().__init__()
        self.table = None

    def forward(self, x):
        if self.table is None or self.table.shape[0] < x.shape[1]:
            self.table = torch.rand(x.shape[1], 1)
        return self.lin(x) * self.table[: x.shape[1]]


class Twice(Base):
    """Later calls compute something else from the input."""

    def __init__(self):
        super().__init__()
        self.table = None

    def forward(self, x):
        if self.table is None or self.table.shape[0] < x.shape[1]:
            self.table = table(x.shape[1])
            return self.lin(x) * self.table
        return self.lin(x.detach()) * self.table[: x.shape[1]]


class Counted(Base):
    """Besides, it counts its calls, and late ones compute something else."""

    def __init__(self):
        super().__init__()
        self.table = None
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.table is None or self.table.shape[0] < x.shape[1]:
            self.table = table(x.shape[1])
        return self.lin(x) * (2 if self.calls > 50 else 1) * self.table[: x.shape[1]]


class OfGradMode(Base):
    """A table that is made without gradients has other numbers."""

    def __init__(self):
        super().__init__()
        self.table = None

    def forward(self, x):
        if self.table is None or self.table.shape[0] < x.shape[1]:
            self.table = table(x.shape[1]) * (2 if torch.is_grad_enabled() else 1)
        return self.lin(x) * self.table[: x.shape[1]]


REFUSED = [Counted, OfGradMode, Scaled, First, Trained, OfInputs, Selected, Random, Twice]


@pytest.mark.parametrize("make", REFUSED)
def test_a_table_that_matters_is_refused(make):
    model = make()
    with pytest.raises(CaptureError, match=r"assigns self\.(table|calls)"):
        lg.to_ir(model, (torch.rand(2, 6, 4),))
    assert model.table is None
