"""Models that add up numbers over their calls, as metrics do, and return those of each call."""

from __future__ import annotations

import copy

import pytest
import torch

import layergraph as lg
from core.tests.traps.harness import Base
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal


class Adding(Base):
    """It computes the number of a call from zeros, and adds it to the sum of all calls."""

    def __init__(self):
        super().__init__()
        self.sum = torch.zeros(4)
        self.lists = []
        self.calls = 0

    def result(self, y):
        return self.sum / y.shape[0]

    def forward(self, x):
        y = self.lin(x)
        with torch.no_grad():
            before, self.sum = self.sum.detach().clone(), torch.zeros(4).to(self.sum.device)
            self.sum += y.sum(0)
            given = self.result(y)
            self.sum = before + self.sum
            self.calls += 1
            self.lists.append(y.detach())
        return y, given


def test_sums_that_nothing_reads_are_left_out():
    model = Adding()
    before = dict(vars(model))
    ir = lg.to_ir(model, (torch.rand(3, 4),))
    assert all(before[key] is each for key, each in vars(model).items())
    assert (model.calls, model.lists) == (0, [])
    rebuilt = lg.to_torch(ir, model.state_dict())
    original = copy.deepcopy(model)
    for rows in (3, 5, 1):
        x = torch.rand(rows, 4)
        assert bitwise_equal(rebuilt(x), original(x))


class OfAllCalls(Adding):
    """It returns the sum over all calls."""

    def forward(self, x):
        y, _ = super().forward(x)
        return y, self.sum


class Growing(Adding):
    """The number of calls so far scales the result."""

    def result(self, y):
        return self.sum / (self.calls + 1)


class Starting(Adding):
    """The sum so far is where the number of a call starts."""

    def result(self, y):
        return self.sum / y.shape[0] if self.calls < 2 else self.sum.sqrt()


class Noting(Adding):
    """The results of earlier calls come back."""

    def result(self, y):
        return torch.cat([*self.lists, y]).sum(0)


class InStateDict(Base):
    """Nothing reads the sum, but it is in the state dict."""

    def __init__(self):
        super().__init__()
        self.register_buffer("sum", torch.zeros(4))

    def forward(self, x):
        y = self.lin(x)
        self.sum = self.sum + y.detach().sum(0)
        return y


class Reset(InStateDict):
    """No run differs from another, but the first leaves other numbers than it found."""

    def forward(self, x):
        self.sum = torch.ones(4)
        return self.lin(x)


@pytest.mark.parametrize("make", [OfAllCalls, InStateDict, Reset])
def test_sums_that_the_graph_sets_come_back(make):
    model = make()
    ir = lg.to_ir(model, (torch.rand(3, 4),))
    rebuilt = lg.to_torch(ir, model.state_dict())
    for rows in (3, 5, 1):
        x = torch.rand(rows, 4)
        assert bitwise_equal(rebuilt(x), model(x))
        assert bitwise_equal(dict(rebuilt.state_dict()), dict(model.state_dict()))


REFUSED = [Growing, Starting, Noting]


@pytest.mark.parametrize("make", REFUSED)
def test_sums_that_matter_are_refused(make):
    with pytest.raises(CaptureError, match="keeps from one call to the next"):
        lg.to_ir(make(), (torch.rand(3, 4),))


class Casting(Base):
    """It casts its bias to the dtype of the input, and asks for gradients of a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x):
        self.lin.bias.data = self.lin.bias.data.to(x.device, x.dtype)
        y = self.lin(x)
        return y if self.scale.grad is None else y * self.scale


def test_a_cast_that_changes_nothing_is_no_change():
    model = Casting()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.rand(3, 4),)), model.state_dict())
    x = torch.rand(5, 4)
    assert bitwise_equal(rebuilt(x), model(x))


class Asking(Base):
    """Its result depends on the gradients that a weight has."""

    def forward(self, x):
        return self.lin(x) if self.lin.weight.grad is None else self.lin(x) * 2


def test_gradients_that_may_come_are_refused():
    with pytest.raises(CaptureError, match="'grad' of a tensor that requires gradients"):
        lg.to_ir(Asking(), (torch.rand(3, 4),))
