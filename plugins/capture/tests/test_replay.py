"""One run that tells what both modes do."""

from __future__ import annotations

import contextlib
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal
from layergraph_capture.replaying import abstract_values as kinds
from layergraph_capture.replaying import tracer as replay
from layergraph_capture.replaying.tracer import ReplayTracer
from layergraph_capture.tracer import EagerTracer

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


class Sizes(Base):
    """One function on tensors of two sizes."""

    def forward(self, x):
        return F.dropout(x, 0.5, self.training) + F.dropout(x[0], 0.5, self.training)


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
    call = EagerTracer.call

    def counted(self, *args):
        count.append(1)
        call(self, *args)

    monkeypatch.setattr(EagerTracer, "call", counted)
    return count


def _is_as_with_two_runs(model, monkeypatch):
    ir = lg.to_ir(model, (X,), values="assume")
    monkeypatch.setattr(ReplayTracer, "_in_other_mode", lambda *_: None)
    return ir == lg.to_ir(model, (X,), values="assume")


@pytest.mark.parametrize("cls", [Flag, Number, Unused, Inner, Sizes, InPlace, Unnamed, CalledTwice])
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


class Depth(nn.Module):
    """What a block does in training alone: stochastic depth."""

    def forward(self, x):
        if not self.training:
            return x
        return x * torch.empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(0.5)


class Within(nn.Module):
    """A model that differs in its child alone."""

    def __init__(self, child):
        super().__init__()
        self.lin = nn.Linear(6, 6)
        self.child = child
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        y = self.child(self.drop(self.lin(x)))
        y += x
        return self.child(y * x.shape[0]), y


class Blocks(Base):
    """Modules in a module that differs, of which some differ themselves."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = Depth(), Depth(), nn.BatchNorm1d(4)

    def forward(self, x):
        if self.training:
            return self.norm(self.second(self.first(self.lin(x)) * 2))
        return self.first(self.drop(x)) + 1


class Two(Base):
    """Two results, of which one mode gives the same twice."""

    def forward(self, x):
        y = self.lin(x)
        return torch.add(*(y, y) if self.training else (y, x + 1))


class Counts(Base):
    def forward(self, x):
        if self.training:
            self.count += 1
        return x + self.count


class Flow(Base):
    """With tuples, and regions that are left and entered."""

    class Pair(nn.Module):
        def forward(self, pair, scale=1.0):
            x, y = pair
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                if self.training:
                    return (y * scale).clone(), {"x": [x.relu()]}
                return x.detach(), {"x": [y.detach()]}

    def __init__(self):
        super().__init__()
        self.pair = self.Pair()

    def forward(self, x):
        y, rest = self.pair((x, self.lin(x)), scale=x.shape[0])
        return y + rest["x"][0]


class Region(Base):
    """A region in one mode alone; what comes before it is different too."""

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                x = x * 2
        return self.lin(x)


class Assumes(Base):
    """The shape of what it is given decides, in both modes."""

    def forward(self, x):
        y = self.lin(torch._C._nn.pad(x, (1, 1), "circular")[..., 1:-1])
        return y * torch.rand_like(y) if self.training else y


@pytest.mark.parametrize(
    "child",
    [
        *(Depth, Blocks, Two, Counts, Flow, FewerCalls, AnotherTensor),
        *(Region, Assumes),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_module_that_does_something_else_is_run_by_itself(child, training, runs, monkeypatch):
    model = Within(child()).train(training)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    lg.to_ir(model, (X,))
    assert len(runs) == 1
    assert torch.is_grad_enabled()
    assert all(bitwise_equal(value, state[key]) for key, value in model.state_dict().items())
    assert _is_as_with_two_runs(model, monkeypatch)
    report = lg.verify(model, (X,))
    assert report.ok, str(report)


class ChangesInput(Base):
    """One mode changes what it is given in place, and who gave it goes on with that."""

    def forward(self, x):
        return x.mul_(2) if self.training else x + 1


class ChangesInputUnseen(Base):
    def forward(self, x):
        if self.training:
            x.view(-1).mul_(2)
        return self.lin(x)


class GivesOneTwice(Base):
    def forward(self, x):
        y = self.lin(x)
        return (y, y + 1) if self.training else (y, y)


class Unpacks(Base):
    """A caller that can tell two results from one."""

    def __init__(self):
        super().__init__()
        self.child = GivesOneTwice()

    def forward(self, x):
        y, z = self.child(x)
        return y * 2 + z


class Asks(Base):
    """One mode asks for numbers."""

    def forward(self, x):
        if self.training and (x > 1e9).any():
            return x * 2
        return self.lin(x) * (2 if self.training else 3)


class Swallows(Base):
    """Its code catches what it should not; a later module differs too."""

    class Inner(nn.Module):
        def forward(self, x):
            try:
                if self.training:
                    x = x * 3
            except Exception:
                pass
            return x

    def __init__(self):
        super().__init__()
        self.inner, self.depth = self.Inner(), Depth()

    def forward(self, x):
        return self.depth(self.inner(self.lin(x)))


class Reshapes(Base):
    """What its child was given has another shape afterwards."""

    class Mask(nn.Module):
        def forward(self, x):
            ones = torch.ones(()) * x.dim()
            return ones * 2 if self.training else ones

    def __init__(self):
        super().__init__()
        self.mask = self.Mask()

    def forward(self, x):
        y = x + 1
        mask = self.mask(y)
        return self.lin(x) * mask + y.unsqueeze_(0).squeeze(0)


class GivesInput(nn.Module):
    """Return the input in one mode, which no hook of ours sees."""

    def forward(self, x):
        return {"y": x * 2 if self.training else x}


class Opens(Base):
    def __init__(self):
        super().__init__()
        self.child = GivesInput()

    def forward(self, x):
        return self.child(self.lin(x))["y"] + 1


class Detaches(Base):
    def forward(self, x):
        return x.detach() * 2 if self.training else self.lin(x)


class AsksForGradients(Base):
    def __init__(self):
        super().__init__()
        self.child = Detaches()

    def forward(self, x):
        y = self.child(x)
        return y * 3 if y.requires_grad else y


class Drops(nn.Module):
    def forward(self, x):
        return x * 0 if self.training else x


class ReadsResult(Base):
    """What it decides by, a module gives that does something else."""

    def __init__(self):
        super().__init__()
        self.drops = Drops()

    def forward(self, x):
        x = x.abs() + 1
        y = self.drops(x)
        return self.lin(x) * (2 if (y == 0).any() else 3)


class ReadsShared(ReadsResult):
    """What it decides by lies, in one mode, in the memory of what a module gave."""

    def forward(self, x):
        x = x.abs() + 1
        y = self.drops(x)
        y -= 1e9
        return self.lin(y) * (2 if (x < 0).any() else 3)


class ReadsBuffer(Base):
    """What it decides by, a module counts in one mode."""

    def __init__(self):
        super().__init__()
        self.child = Counts()

    def forward(self, x):
        y = self.child(x)
        return y * (2 if self.child.count > 0 else 3)


class Selects(Base):
    """In one mode, numbers decide a shape, on which more depends."""

    def forward(self, x):
        return x * x[x > 0].shape[0] if self.training else x * 2


class AsksForItsGraph(Base):
    def forward(self, x):
        if not self.training:
            return x * 1
        return x * 2 if x.grad_fn is not None and not x.is_leaf else x * 3


class Kept:
    """What modules pass on beside their arguments."""


class ReadsElse(Base):
    """In one mode it reads what it was not given."""

    def __init__(self, kept):
        super().__init__()
        self.kept = [kept]

    def forward(self, x):
        return x * 2 + self.kept[0].value if self.training else x * 3


class Passes(Base):
    def __init__(self):
        super().__init__()
        self.passed = [Kept()]
        self.child = ReadsElse(self.passed[0])

    def forward(self, x):
        self.passed[0].value = self.lin(x)
        y = self.child(x + 1)
        del self.passed[0].value
        return y


@pytest.mark.parametrize(
    ("child", "if_training", "if_not"),
    [
        (ChangesInput, 2, 2),
        (ChangesInputUnseen, 1, 2),
        (Unpacks, 1, 2),
        (Asks, 1, 2),
        (Swallows, 1, 1),
        (Passes, 1, 2),
        (Reshapes, 1, 1),
        (Opens, 1, 2),
        (Selects, 1, 2),
        (AsksForItsGraph, 1, 1),
        (AsksForGradients, 2, 2),
        (ReadsResult, 2, 2),
        (ReadsShared, 2, 2),
        (ReadsBuffer, 2, 2),
    ],
)
def test_what_the_code_around_a_module_can_tell_is_run(child, if_training, if_not, runs):
    for training, expected in ((True, if_training), (False, if_not)):
        model = Within(child()).train(training)
        runs.clear()
        lg.to_ir(model, (X,), values="assume")
        assert len(runs) == expected
        report = lg.verify(model, (X,), values="assume")
        assert report.ok, str(report)


class Refused(Base):
    """In training it does what cannot be carried over."""

    def forward(self, x):
        x = self.lin(x)
        if self.training:
            x.grad = None
        return x + 1


def test_a_mode_that_is_refused_is_not_run(runs):
    model = Within(Refused()).eval()
    with torch.no_grad():
        ir = lg.to_ir(model, (X,))
    assert len(runs) == 1
    rebuilt = lg.to_torch(ir, model.state_dict())
    assert bitwise_equal(rebuilt(X)[0], model(X)[0])
    with pytest.raises(AssumptionError, match="training of 'child'"):
        rebuilt.train()(X)


@pytest.mark.parametrize("few", [0, kinds.FEW])
@pytest.mark.parametrize("cls", [Flag, Number, Inner, AnotherShape])
def test_of_what_kind_a_result_is_is_seen_with_and_without_numbers(cls, few, runs, monkeypatch):
    monkeypatch.setattr(kinds, "FEW", few)
    model = cls().eval()
    assert _is_as_with_two_runs(model, monkeypatch)
    assert len(runs) == (3 if cls is AnotherShape else 2) + 1


@pytest.mark.parametrize("cls", [ChangesLeaf, ChangesMode])
def test_a_change_that_one_mode_makes_to_a_leaf_is_not_overlooked(cls):
    model = cls().eval()
    try:
        ir = lg.to_ir(model, (X,))
    except CaptureError:
        return
    rebuilt = lg.to_torch(ir, model.state_dict()).train()
    if cls is ChangesLeaf:
        with pytest.raises(AssumptionError):
            rebuilt(X)
    else:
        torch.manual_seed(5)
        expected = model.train()(X)
        torch.manual_seed(5)
        assert bitwise_equal(rebuilt(X), expected)


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
        return self.lin(x) * (type(self).steps or 1)


class RemembersInTraining(Base):
    def forward(self, x):
        if self.training:
            self.seen = [*getattr(self, "seen", []), 1]
        return self.lin(x) * len(getattr(self, "seen", [1]))


class Tries(Base):
    """Its child fails in training, which it knows."""

    class Raises(nn.Module):
        def forward(self, x):
            if self.training:
                raise ValueError
            return x + 1

    def __init__(self):
        super().__init__()
        self.child, self.depth = self.Raises(), Depth()

    def forward(self, x):
        try:
            y = self.child(x)
        except ValueError:
            y = x * 2
        return self.depth(y)


class TriesLate(Tries):
    """Its child fails in training, after it has done something else."""

    class Raises(nn.Module):
        def forward(self, x):
            if self.training:
                x = x.relu() + x.tanh()
                raise ValueError
            return x + 1


class TriesLast(TriesLate):
    def forward(self, x):
        y = self.lin(x)
        with contextlib.suppress(ValueError):
            self.child(y)
        return y


class CatchesInTraining(Base):
    class Child(nn.Module):
        def forward(self, x):
            if self.training:
                try:
                    return x + torch.ones(5, 5)
                except RuntimeError:
                    return x * 2
            return x

    def __init__(self):
        super().__init__()
        self.child = self.Child()

    def forward(self, x):
        return self.child(self.lin(x))


class Stale(Base):
    """What an evaluation leaves behind, training reads."""

    class Leaves(nn.Module):
        def __init__(self, kept):
            super().__init__()
            self.kept = [kept]

        def forward(self, x):
            if not self.training:
                self.kept[0].value = x + 1
                return x * 2
            return x * 3

    def __init__(self):
        super().__init__()
        self.kept = [Kept()]
        self.child = self.Leaves(self.kept[0])

    def forward(self, x):
        return self.child(x) + self.kept[0].value


@pytest.mark.parametrize(
    "cls",
    [
        Tries,
        TriesLate,
        TriesLast,
        CatchesInTraining,
        Stale,
        DrawsInTraining,
        CountsInTraining,
        RemembersInTraining,
    ],
)
def test_what_only_the_other_mode_does_is_no_fault_of_this_one(cls):
    model = cls().eval()
    before = random.getstate()
    ir = lg.to_ir(model, (X,))
    assert random.getstate() == before
    assert cls.__dict__.get("steps", 0) == 0
    assert not hasattr(model, "seen")
    rebuilt = lg.to_torch(ir, model.state_dict())
    assert bitwise_equal(rebuilt(X), model(X))
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


class Sparse(Base):
    """A result that a replay needs as it is."""

    def forward(self, x):
        return F.dropout(x.to_sparse().to_dense(), 0.5, self.training)


@pytest.mark.parametrize(("limit", "expected"), [(500, 2), (5_000, 1)])
def test_a_run_that_takes_too_much_memory_is_not_kept(limit, expected, runs, monkeypatch):
    monkeypatch.setattr(replay, "MAX_LOG_BYTES", limit)
    lg.to_ir(Sparse(), (torch.randn(16, 16),))
    assert len(runs) == expected
