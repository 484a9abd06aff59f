"""One run that tells what both modes do."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError
from layergraph.torch2ir import replay
from layergraph.torch2ir.replay import Replaying
from layergraph.torch2ir.run import Running

X = torch.randn(3, 4, 6)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(6, 6)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(()))


class Flag(Base):
    def forward(self, x):
        return F.dropout(self.lin(x), 0.5, self.training)


class Number(Base):
    def forward(self, x):
        x = self.drop(self.lin(x))
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5 if self.training else 0.0)


class Unused(Base):
    def forward(self, x):
        if self.training and x is None:
            raise ValueError
        return self.lin(x)


class Inner(Base):
    def __init__(self):
        super().__init__()
        self.flag = Flag()

    def forward(self, x):
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            scale = x.shape[-1] ** -0.5
        return self.flag(x) * scale + self.flag(x.view(x.shape[0], -1, x.shape[2]))


class Unnamed(Base):
    """A function without a name: it is recorded one level below, as part of its step."""

    def forward(self, x):
        y = torch._softmax(self.lin(x), -1, False)
        return F.dropout(y, 0.5, self.training)


class CalledTwice(Base):
    """In one mode two calls of a module are alike, and in the other they are not."""

    class Option:
        def __init__(self, drops):
            self.drops = drops

    class Inner(nn.Module):
        def forward(self, x, option):
            return F.dropout(x, 0.5, self.training and option.drops) + 1

    def __init__(self):
        super().__init__()
        self.inner = self.Inner()

    def forward(self, x):
        return self.inner(x, self.Option(True)) + self.inner(self.lin(x), self.Option(False))


class InPlace(Base):
    def forward(self, x):
        y = self.lin(x)
        y += 1
        y = F.dropout(y, 0.5, self.training)
        y *= 2
        return y, {"twice": [y + y, self.drop(y)]}


@pytest.fixture
def runs(monkeypatch):
    """How many times a model ran."""
    count = []
    call = Running.call

    def counted(self, *args):
        count.append(1)
        call(self, *args)

    monkeypatch.setattr(Running, "call", counted)
    return count


def _is_as_with_two_runs(model, monkeypatch):
    ir = lg.to_ir(model, (X,))
    monkeypatch.setattr(Replaying, "_in_other_mode", lambda *_: None)
    return ir == lg.to_ir(model, (X,))


@pytest.mark.parametrize("cls", [Flag, Number, Unused, Inner, InPlace, Unnamed, CalledTwice])
@pytest.mark.parametrize("training", [True, False])
def test_a_model_runs_once_for_both_modes(cls, training, runs, monkeypatch):
    model = cls().train(training)
    lg.to_ir(model, (X,))
    assert len(runs) == 1
    assert _is_as_with_two_runs(model, monkeypatch)
    report = lg.verify(model, (X,))
    assert report.ok, str(report)


class AnotherCall(Base):
    def forward(self, x):
        with torch.no_grad(), torch.autocast("cpu"):
            y = self.lin(x) * 2
            if self.training:
                y = y * torch.rand_like(y)
        return y


class FewerCalls(Base):
    def forward(self, x):
        return self.lin(x) if self.training else self.lin(x) + 1


class AnotherTensor(Base):
    def forward(self, x):
        y, z = self.lin(x), x * 2
        return (y if self.training else z) + 1


class AnotherReturn(Base):
    def forward(self, x):
        y = self.lin(x)
        return (y, x) if self.training else y


class AnotherArgument(Base):
    class Child(nn.Module):
        def forward(self, x, scale=None):
            return x + 1 if scale is None else x

    def __init__(self):
        super().__init__()
        self.child = self.Child()

    def forward(self, x):
        y = self.lin(x)
        return self.child(y, y if self.training else None)


class Decides(Base):
    """A decision by a size that only one mode takes."""

    def forward(self, x):
        scale = 2.0 if self.training and x.shape[0] > 2 else 1.0
        return self.lin(x) * scale


class AnotherShape(Base):
    def forward(self, x):
        return torch.sum(self.lin(x), dim=1, keepdim=self.training)


class ChangesLeaf(Base):
    """One mode changes a leaf for a call."""

    def forward(self, x):
        if self.training:
            self.drop.p = 0.1
        y = self.drop(self.lin(x))
        self.drop.p = 0.5
        return y


class ChangesMode(Base):
    def forward(self, x):
        was = self.drop.training
        if self.training:
            self.drop.training = False
        y = self.drop(self.lin(x))
        self.drop.training = was
        return y


class Catches(Base):
    """Code that catches what it should not."""

    def forward(self, x):
        y = self.lin(x)
        try:
            if self.training:
                y = y * 3
        except Exception:
            pass
        return y


class ChangesList(Base):
    """The list that a function was given is another one afterwards."""

    def forward(self, x):
        parts = [x, x + 1]
        y = torch.cat(parts)
        parts.append(y)
        more = [x, x + 1, y] if self.training else [x, x + 1]
        return self.lin(torch.cat(more[:2])) + torch.cat(more).sum()


class Scripted(Base):
    def forward(self, x):
        return _scripted(self.lin(x)) * (2 if self.training else 3)


@torch.jit.script
def _scripted(x):
    return x.relu() + 1


class Assigns(Base):
    def forward(self, x):
        self.seen = self.training
        return self.lin(x)


@pytest.mark.parametrize(
    "cls",
    [
        *(AnotherCall, FewerCalls, AnotherTensor, AnotherReturn, AnotherArgument, AnotherShape),
        *(Decides, Catches, ChangesList, Scripted),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_what_differs_in_more_is_run_in_both_modes(cls, training, runs, monkeypatch):
    model = cls().train(training)
    lg.to_ir(model, (X,))
    assert len(runs) == 2
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert _is_as_with_two_runs(model, monkeypatch)
    report = lg.verify(model, (X,))
    assert report.ok, str(report)


@pytest.mark.parametrize("cls", [ChangesLeaf, ChangesMode])
def test_a_change_that_one_mode_makes_to_a_leaf_is_not_overlooked(cls):
    model = cls().eval()
    try:
        ir = lg.to_ir(model, (X,))
    except CaptureError:
        return
    with pytest.raises(AssumptionError):
        lg.to_torch(ir, model.state_dict()).train()(X)


class DrawsInTraining(Base):
    def forward(self, x):
        if self.training and random.random() > 2:
            raise ValueError
        return self.lin(x)


class CountsInTraining(Base):
    steps = 0

    def forward(self, x):
        if self.training:
            type(self).steps += 1
        return self.lin(x)


class RemembersInTraining(Base):
    def forward(self, x):
        if self.training:
            self.seen = [*getattr(self, "seen", []), 1]
        return self.lin(x) * len(getattr(self, "seen", [1]))


@pytest.mark.parametrize("cls", [DrawsInTraining, CountsInTraining, RemembersInTraining])
def test_what_only_the_other_mode_does_is_no_fault_of_this_one(cls):
    model = cls().eval()
    before = random.getstate()
    ir = lg.to_ir(model, (X,))
    assert random.getstate() == before
    assert cls.__dict__.get("steps", 0) == 0
    assert not hasattr(model, "seen")
    rebuilt = lg.to_torch(ir, model.state_dict())
    assert torch.equal(rebuilt(X), model(X))
    with pytest.raises(AssumptionError):
        rebuilt.train()(X)


class Reads(Base):
    """A number that another mode may have otherwise."""

    def forward(self, x):
        y = self.drop(x.abs() + 1)
        return self.lin(x) * (2 if (y == 0).any() else 3), self.training


class Compares(Base):
    def forward(self, x):
        y = self.drop(x)
        return self.lin(x) * (2 if torch.equal(x, y) else 3), self.training


class ReadsElsewhere(Base):
    def forward(self, x):
        y = self.drop(x)
        return y * (2 if (x > 1e9).any() else 3) + F.dropout(y, 0.1, self.training)


@pytest.mark.parametrize("cls", [Reads, Compares])
def test_numbers_that_the_mode_may_change_are_read_again(cls, runs):
    model = cls().eval()
    lg.to_ir(model, (X,), values="assume")
    assert len(runs) == 2


def test_numbers_that_it_does_not_change_are_not(runs):
    lg.to_ir(ReadsElsewhere().eval(), (X,), values="assume")
    assert len(runs) == 1


def test_a_run_that_takes_too_much_memory_is_not_kept(runs, monkeypatch):
    monkeypatch.setattr(replay, "ROOM", 500)
    lg.to_ir(Number(), (X,))
    assert len(runs) == 2
