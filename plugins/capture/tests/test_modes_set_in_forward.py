"""Code that calls ``train()`` or ``eval()`` of modules in ``forward``, or sets ``training``."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.3))


class FrozenNorm(Base):
    def forward(self, x):
        self.norm.eval()
        return self.norm(self.lin(x))


class FrozenNet(Base):
    def forward(self, x):
        self.net.eval()
        return self.net(self.lin(x))


class Teacher(Base):
    def forward(self, x):
        self.net.eval()
        with torch.no_grad():
            target = self.net(x)
        return self.lin(x) - target


class ForAWhile(Base):
    def forward(self, x):
        was = self.norm.training
        self.norm.train(False)
        y = self.norm(x)
        self.norm.train(was)
        return y + self.norm(x)


class DropsAlways(Base):
    """Monte Carlo dropout."""

    def forward(self, x):
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.train()
        return self.drop(self.net(x))


class ByAttribute(Base):
    def forward(self, x):
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.training = False
        return self.net(x)


class Whole(Base):
    def forward(self, x):
        was = self.training
        self.eval()
        y = self.drop(self.net(x))
        self.train(was)
        return y


class Reversed(Base):
    def forward(self, x):
        self.drop.train(not self.training)
        return self.drop(x)


def assert_same(rebuilt, model):
    for training in (True, False, True):
        model.train(training)
        rebuilt.train(training)
        for rows in (3, 5, 3):
            x = torch.randn(rows, 4)
            torch.manual_seed(5)
            expected = model(x)
            torch.manual_seed(5)
            result = rebuilt(x)
            assert bitwise_equal(result, expected)
            results = []
            for each, y in ((model, expected), (rebuilt, result)):
                each.zero_grad()
                if y.requires_grad:
                    y.sum().backward()
                results.append({name: p.grad for name, p in each.named_parameters()})
            assert bitwise_equal(*results)
            assert bitwise_equal(dict(rebuilt.state_dict()), dict(model.state_dict()))


CASES = [FrozenNorm, FrozenNet, Teacher, ForAWhile, DropsAlways, ByAttribute, Whole, Reversed]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("cls", CASES)
def test_the_modules_run_in_the_mode_that_forward_sets(cls, training, tmp_path):
    model = cls().train(training)
    path = tmp_path / "model.safetensors"
    lg.save(lg.to_ir(model, (torch.randn(3, 4),)), path, model.state_dict())
    assert_same(lg.load_model(path), model)


class FreezesLater(Base):
    """The first call in training mode computes something else than the second."""

    def forward(self, x):
        y = self.norm(x)
        self.norm.eval()
        return y


def test_a_mode_that_only_later_calls_see_is_refused_or_guarded():
    x = torch.randn(3, 4)
    with pytest.raises(CaptureError, match=r"assigns self\.training"):
        lg.to_ir(FreezesLater(), (x,))
    rebuilt = lg.to_torch(lg.to_ir(FreezesLater().eval(), (x,))).train()
    with pytest.raises(AssumptionError, match="training of 'norm'"):
        rebuilt(x)
