"""Loops of very many turns: they are found on few turns, and the IR is compared on the example."""

# What the linter would have written otherwise are the traps.
# ruff: noqa: E722

from __future__ import annotations

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal
from layergraph_capture.loops import confirm
from layergraph_capture.tracer import EagerTracer
from plugins.capture.tests.loop_cases import Base, sequence

TURNS = 700


class Recurrent(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        o = []
        for t in range(x.shape[1]):
            h = torch.tanh(self.lin(x[:, t]) + h) * 0.5
            o.append(h)
        return self.after(torch.stack(o, 1))

    def after(self, y):
        return y


class Unbound(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for each in x.unbind(1):
            h = self.lin(torch.tanh(each) + h) * 0.5 + each
        return h


class While(Base):
    def forward(self, x):
        h, t = x.new_zeros(x.shape[0], 4), 0
        while t < x.shape[1]:
            h = torch.tanh(self.lin(x[:, t]) + h) * 0.5
            t += 1
        return h


class Chunks(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(0, x.shape[1], 2):
            part = x[:, t : t + 2]
            h = torch.tanh(self.lin(part.mean(1)) + h) * 0.5 + torch.sigmoid(h) + part.sum(1)
            h = torch.relu(h) - torch.tanh(h) * 0.5
        return h


class Nested(Base):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            for _ in range(2):
                h = torch.tanh(self.lin(x[:, t]) + h) * 0.5
        return h


class Turn(Base):
    def forward(self, x, h):
        gate = torch.sigmoid(self.lin(x) + h)
        return torch.tanh(gate * h + (1 - gate) * x) * 0.5


class Cell(Base):
    """The turn is a call of a module, in which nearly all functions are called."""

    def __init__(self):
        super().__init__()
        self.turn = Turn()

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for each in x.unbind(1):
            h = self.turn(each, h)
        return h


class ByMode(Recurrent):
    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = torch.tanh(F.dropout(self.lin(x[:, t]), 0.5, self.training) + h) * 0.5
        return h


class Norm(Base):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = torch.tanh(self.norm(self.lin(x[:, t])) + h) * 0.5
        return h


class Counted(Base):
    """It counts its turns in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = torch.tanh(self.lin(x[:, t]) + h) * 0.5
            self.count += 1
        return h * self.count


class Pair(Base):
    """Both inputs have the size, and one has it twice."""

    def forward(self, x, mask):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = torch.tanh(self.lin(x[:, t]) + h) * mask[t].sum() + h * 0.5
        return h


class Catches(Base):
    """It catches all that is raised in a turn."""

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            try:
                h = torch.tanh(self.lin(x[:, t]) + h) * 0.5
            except:
                h = torch.zeros_like(h)
        return h


def pair(length):
    return *sequence(length), torch.rand(length, length)


def assert_serves(model, rebuilt, given):
    for training in (True, False):
        expected = copy.deepcopy(model).train(training)
        rebuilt.load_state_dict(model.state_dict())
        results = []
        for each in (expected, rebuilt.train(training)):
            torch.manual_seed(0)
            result = each(*given)
            grads = torch.autograd.grad(result.sum(), [*each.parameters()], allow_unused=True)
            results.append((result, grads, dict(each.state_dict())))
        assert bitwise_equal(*results)


@pytest.fixture
def recorded(monkeypatch):
    """The numbers of the functions that runs record."""
    calls = []
    original = EagerTracer.function

    def noting(self, *args):
        calls.append(args[0])
        return original(self, *args)

    monkeypatch.setattr(EagerTracer, "function", noting)
    return calls


class NoTurns(Base):
    """Compute many values, in an order that never repeats four times."""

    def forward(self, x):
        h = x[:, 0] if x.shape[1] > 64 else x[:, 1]
        for number in range(200):
            h = h + 1 if number.bit_count() % 2 else torch.tanh(h)
        return h


def test_a_run_without_turns_is_not_left(recorded):
    lg.to_ir(NoTurns(), (torch.randn(1, 4096, 4),), modes="own")
    assert len(recorded) == 201


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        *((each, sequence) for each in (Recurrent, Unbound, Chunks, Nested, Cell)),
        *((each, sequence) for each in (ByMode, Norm, Counted)),
        (Pair, pair),
    ],
    ids=lambda value: value.__name__,
)
def test_a_long_loop_is_found_on_few_turns(kind, given, recorded):
    torch.manual_seed(0)
    model = kind()
    before = copy.deepcopy(model.state_dict())
    example = given(TURNS)
    drawn = torch.get_rng_state()
    ir = lg.to_ir(model, example)
    assert torch.equal(drawn, torch.get_rng_state())
    assert len(recorded) < TURNS * 2
    assert bitwise_equal(before, model.state_dict())
    rebuilt = lg.to_torch(ir, model.state_dict())
    assert str(ir).count("layergraph.loop(") in (1, 2)
    for length in (TURNS, 6, 40):
        assert_serves(model, rebuilt, given(length))
    shorter = lg.to_ir(model, given(40))
    assert str(shorter) == str(ir)


class ChangesLate(Recurrent):
    """It does something else for very many turns."""

    def after(self, y):
        return y * 2 if y.shape[1] > TURNS // 2 else y


class Guarded(Recurrent):
    """Its last turns differ from the others."""

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h = torch.tanh(self.lin(x[:, t]) + h) * (0.5 if t < TURNS - 20 else 0.25)
        return h


class ChangesWeights(Recurrent):
    def forward(self, x):
        with torch.no_grad():
            self.lin.bias.mul_(0.5)
        return super().forward(x)


class Floats(Recurrent):
    """It multiplies a number of Python in each turn."""

    def forward(self, x):
        h, w = x.new_zeros(x.shape[0], 4), 1.0
        for t in range(x.shape[1]):
            h = torch.tanh(self.lin(x[:, t]) + h) * w + h * 0.5 - torch.sigmoid(h)
            w *= 0.99
        return h


class CountsInCache(Recurrent):
    """It counts where no search sees it, so that only a full run shows its later turns."""

    def forward(self, x):
        seen = functools.cache(lambda _: None)
        h = x.new_zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            seen(seen.cache_info().currsize)
            h = torch.tanh(self.lin(x[:, t]) + h) * 0.5 - torch.sigmoid(h)
            if seen.cache_info().currsize > TURNS // 2:
                h = h * 2
        return h


HARD = [ChangesLate, Guarded, ChangesWeights, Floats, While, Catches, CountsInCache]


@pytest.mark.parametrize("kind", HARD)
def test_what_few_turns_do_not_show_is_captured_in_full(kind, recorded):
    torch.manual_seed(0)
    model = kind()
    before = copy.deepcopy(model.state_dict())
    ir = lg.to_ir(model, sequence(TURNS))
    assert len(recorded) > TURNS * 2
    assert bitwise_equal(before, model.state_dict())
    rebuilt = lg.to_torch(ir, model.state_dict())
    assert_serves(model, rebuilt, sequence(TURNS))
    for length in (6, TURNS - 10, TURNS + 1):
        try:
            assert_serves(model, rebuilt, sequence(length))
        except AssumptionError:
            continue


def test_a_run_that_is_left_changes_nothing():
    class Keeps(Counted):
        calls = 0

        def forward(self, x):
            self.calls += 1
            self.last = x.sum()
            return super().forward(x)

    model = Keeps()
    assert "layergraph.loop(" in str(lg.to_ir(model, sequence(TURNS)))
    assert model.calls == 0
    assert not hasattr(model, "last")
    assert not model.count


def changes_the_result(_model, _args, result):
    return result + 1


def changes_a_buffer(model, _args, _result):
    model.get_buffer("count").add_(1)


@pytest.mark.parametrize("fault", [changes_the_result, changes_a_buffer])
def test_a_graph_that_does_something_else_is_not_believed(fault, recorded, monkeypatch):
    def faulty(ir, **options):
        rebuilt = lg.to_torch(ir, **options)
        rebuilt.register_forward_hook(fault)
        return rebuilt

    monkeypatch.setattr(confirm, "to_torch", faulty)
    model = Counted()
    ir = lg.to_ir(model, sequence(TURNS))
    assert len(recorded) > TURNS * 2
    assert_serves(model, lg.to_torch(ir, model.state_dict()), sequence(TURNS))
