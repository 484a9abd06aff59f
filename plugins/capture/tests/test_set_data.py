"""Models that assign the data of a parameter or buffer."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layergraph as lg
from core.tests.traps.harness import Base
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal


class Momentum(Base):
    """A second layer follows the first one, as in contrastive learning."""

    def __init__(self):
        super().__init__()
        self.slow = copy.deepcopy(self.lin).requires_grad_(requires_grad=False)

    @torch.no_grad()
    def follow(self):
        for slow, fast in zip(self.slow.parameters(), self.lin.parameters(), strict=True):
            slow.data = slow.data * 0.9 + fast.data * 0.1

    def forward(self, x):
        self.follow()
        with torch.no_grad():
            target = self.slow(x)
        return F.mse_loss(self.lin(x), target)


class Normed(Base):
    """It gives a weight the norm one, before it uses it."""

    def forward(self, x):
        self.lin.weight.data = F.normalize(self.lin.weight.data, dim=1)
        return self.lin(x)


class Counted(Base):
    """It assigns the data of a buffer, in training only."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        y = self.lin(x)
        if self.training:
            self.mean.data = self.mean * 0.9 + y.detach().mean(0) * 0.1
        return y / (self.mean + 1)


@pytest.mark.parametrize("make", [Momentum, Normed, Counted])
@pytest.mark.parametrize("training", [True, False])
def test_an_assignment_is_a_copy(make, training, tmp_path):
    model = make().train(training)
    before = {key: (each, each.clone()) for key, each in model.state_dict(keep_vars=True).items()}
    memory = {key: each.data_ptr() for key, (each, _) in before.items()}
    ir = lg.to_ir(model, (torch.rand(3, 4),))
    for key, each in model.state_dict(keep_vars=True).items():
        assert each is before[key][0]
        assert each.data_ptr() == memory[key]
        assert torch.equal(each, before[key][1])
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    rebuilt = lg.to_torch(ir, model.state_dict())
    others = [rebuilt, lg.load_model(tmp_path / "m.safetensors")]
    for mode in (training, not training):
        for rows in (3, 5):
            x = torch.rand(rows, 4)
            model.train(mode).zero_grad()
            model(x).sum().backward()
            for each in others:
                each.train(mode).zero_grad()
                each(x).sum().backward()
                assert bitwise_equal(each.lin.weight.grad, model.lin.weight.grad)
                assert bitwise_equal(each.state_dict(), model.state_dict())


class OldRead(Base):
    """It reads the old numbers after the assignment."""

    def forward(self, x):
        old = self.lin.weight.data
        self.lin.weight.data = old / 2
        return self.lin(x) + old.sum()


class NewChanged(Base):
    """It changes the new tensor after the assignment, and so the weight."""

    def forward(self, x):
        new = self.lin.weight.data / 2
        self.lin.weight.data = new
        new.mul_(3)
        return self.lin(x)


class NewGiven(Base):
    """The caller gets the memory of the weight."""

    def forward(self, x):
        new = self.lin.weight.data / 2
        self.lin.weight.data = new
        return self.lin(x), new


class PartChanged(Base):
    """A part of the new tensor changes after the assignment."""

    def forward(self, x):
        new = self.lin.weight.data / 2
        part = new[0]
        self.lin.weight.data = new
        part.zero_()
        return self.lin(x)


class UsedBefore(Base):
    """A layer has used the old numbers, which gradients need."""

    def forward(self, x):
        y = self.lin(x)
        self.lin.weight.data = self.lin.weight.data / 2
        return y + self.lin(x)


class PartUsedBefore(Base):
    """A product has kept a part of the old numbers, which gradients of the layer need."""

    def forward(self, x):
        y = self.lin(x) @ self.other.data.t()
        self.other.data = self.other.data / 2
        return y @ self.other

    def __init__(self):
        super().__init__()
        self.other = nn.Parameter(torch.rand(4, 4))


class OfInput(Base):
    """The weight gets the memory of an input."""

    def forward(self, x):
        self.lin.weight.data = x
        return self.lin(x)


class OfBuffer(Base):
    """The weight gets the memory of a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("other", torch.eye(4))

    def forward(self, x):
        self.lin.weight.data = self.other
        self.other.mul_(2)
        return self.lin(x)


class Shared(Base):
    """Another parameter has the memory of the weight before the assignment only."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.ones(4))
        self.bias.data = self.lin.bias.data

    def forward(self, x):
        self.bias.data = self.bias.data / 2
        return self.lin(x) + self.bias


class Resized(Base):
    """The weight gets another size."""

    def forward(self, x):
        self.lin.weight.data = torch.cat([self.lin.weight.data] * 2)[:2]
        return F.linear(x, self.lin.weight)


REFUSED = [OldRead, NewChanged, NewGiven, PartChanged, UsedBefore, PartUsedBefore]
REFUSED += [OfInput, OfBuffer, Shared, Resized]


@pytest.mark.parametrize("make", REFUSED)
def test_an_assignment_whose_memory_matters_is_refused(make):
    model = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CaptureError, match=r"setting the attribute 'data'|shares memory"):
        lg.to_ir(model, (torch.rand(4, 4),))
    assert bitwise_equal(model.state_dict(), before)
