"""Parameters and layers that forward makes, and gradients that it asks to keep."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from core.tests.traps.harness import Base, Traps, check

TRAPS = Traps()
exact, assumes, refused = TRAPS.exact, TRAPS.assumes, TRAPS.refused


@exact()
class LayerNorm(Base):
    def forward(self, x):
        return nn.LayerNorm(x.shape[1:])(self.lin(x))


@exact(others=[(torch.randn(5, 4),), (torch.randn(2, 4),)])
class BatchNorm(Base):
    def forward(self, x):
        return nn.BatchNorm1d(4)(self.lin(x))


@exact()
class Draws(Base):
    """Each call draws other weights, without gradients."""

    def forward(self, x):
        y = nn.Sequential(nn.Linear(4, 3), nn.PReLU(), nn.Linear(3, 4))(self.lin(x))
        return y, nn.init.xavier_normal_(torch.empty(4, 4)) @ x.T


@exact()
class Attention(Base):
    def forward(self, x):
        return nn.MultiheadAttention(4, 2)(x, x, x)[0] + nn.GRU(4, 4)(self.lin(x))[0]


@exact()
class IsALeaf(Base):
    """No gradient goes through a new parameter to its data."""

    def forward(self, x):
        scale = nn.Parameter(self.lin(x))
        (gradient,) = torch.autograd.grad((scale * 3).sum(), scale)
        return scale * self.lin(x) + gradient, nn.Parameter(torch.ones(2), requires_grad=False)


@exact()
class SharesMemory(Base):
    def forward(self, x):
        data = torch.ones(4)
        scale = nn.Parameter(data)
        with torch.no_grad():
            scale.mul_(3)
        return self.lin(x) * scale * data


@refused("assigns self.weight", placed=False)
class Replaces(Base):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x):
        self.weight = nn.Parameter(self.weight * 2)
        return self.lin(x) * self.weight


@pytest.mark.parametrize("name", TRAPS)
def test_is_never_silently_wrong(name):
    check(TRAPS[name])


def test_a_new_parameter_is_returned_as_one(tmp_path):
    model, x = IsALeaf(), torch.randn(3, 4)
    path = tmp_path / "model.safetensors"
    lg.save(lg.to_ir(model, (x,)), path, model.state_dict())
    again = lg.load_model(path)
    assert type(again(x)[1]) is nn.Parameter
    assert not again(x)[1].requires_grad
    assert list(again.state_dict()) == list(model.state_dict())


class Retains(Base):
    def forward(self, x):
        y = self.lin(x)
        if y.requires_grad:
            y.retain_grad()
        return y, (y * 3).sum()


def test_a_result_retains_its_gradient(tmp_path):
    model, x = Retains(), torch.randn(3, 4)
    path = tmp_path / "model.safetensors"
    lg.save(lg.to_ir(model, (x,)), path, model.state_dict())
    again = lg.load_model(path)
    for each in (model, again):
        y, loss = each(x)
        loss.backward()
        assert torch.equal(y.grad, torch.full((3, 4), 3.0))
    with torch.no_grad():
        assert torch.equal(again(x)[1], model(x)[1])
