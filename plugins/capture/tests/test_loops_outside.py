"""Loops whose turns leave something in plain objects, or whose code takes lists apart afterwards.

A rebuilt model gives the numbers of the original for other lengths, or refuses them.
"""

# What the linter would have written otherwise are the traps.
# ruff: noqa: B006, B905, PERF401, PLW0603

from __future__ import annotations

import collections
import copy
import functools
import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError
from layergraph.testing import bitwise_equal
from layergraph_capture.tracer import EagerTracer

CASES = []
LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 20, 21, 22, 26, 40)


def served(*, least=1, most=None, captured=5):
    """Add a model to the cases: the shortest and the longest length that is served."""

    def add(model):
        CASES.append(pytest.param(model, least, most, captured, id=model.__name__))
        return model

    return add


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(4, 4)
        self.lin = nn.Linear(4, 4)

    def steps(self, x):
        """Return a value of each turn."""
        return [self.lin(x[:, t]) for t in range(x.size(1))]


# --- counters that no variable of the loop's code holds: a run with 21 turns goes another way ---

CONSTANTS = {"n": 0}
number = 0


def count():
    global number
    number += 1
    return number


class Shared:
    n = 0


@dataclass(slots=True)
class Slotted:
    n: int = 0


class Counting(Base):
    """Doubles the state from the turn 21 on."""

    def begin(self):
        """Set the counter to 0."""

    def counted(self):
        """Return the number of the turn, from 1 on."""
        raise NotImplementedError

    def forward(self, x):
        self.begin()
        h = x[:, 0] * 0
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            if self.counted() > 20:
                h = h * 2
        self.begin()
        return h


@served(most=20)
class OfModule(Counting):
    def begin(self):
        self.n = 0

    def counted(self):
        self.n += 1
        return self.n


@served(most=20)
class OfSubmodule(Counting):
    def begin(self):
        self.lin.n = 0

    def counted(self):
        self.lin.n += 1
        return self.lin.n


@served(most=20)
class OfDict(Counting):
    def begin(self):
        CONSTANTS["n"] = 0

    def counted(self):
        CONSTANTS["n"] += 1
        return CONSTANTS["n"]


@served(most=20)
class OfGlobal(Counting):
    def begin(self):
        global number
        number = 0

    def counted(self):
        return count()


@served(most=20)
class OfClass(Counting):
    def begin(self):
        Shared.n = 0

    def counted(self):
        Shared.n += 1
        return Shared.n


@served(most=20)
class OfFunction(Counting):
    def begin(self):
        count.n = 0

    def counted(self):
        count.n += 1
        return count.n


@served(most=20)
class OfSlots(Counting):
    def begin(self):
        self.kept = Slotted()

    def counted(self):
        self.kept.n += 1
        return self.kept.n


@served(most=20)
class OfArray(Counting):
    def __init__(self):
        super().__init__()
        self.kept = np.zeros(1)

    def begin(self):
        self.kept[0] = 0

    def counted(self):
        self.kept[0] += 1
        return float(self.kept[0])


class LocalCounting(Base):
    """Counts in a local variable, for longer than the runs that capture makes."""

    def counter(self):
        """Return an object, and a function that returns the number of the turn, from 1 on."""
        raise NotImplementedError

    def forward(self, x):
        kept, count = self.counter()
        h = x[:, 0] * 0
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            if count(kept) > 30:
                h = h * 2
        return h


@served(most=21)
class OfBytes(LocalCounting):
    def counter(self):
        def count(kept):
            kept.append(1)
            return len(kept)

        return bytearray(), count


@served(most=21)
class OfCounter(LocalCounting):
    def counter(self):
        def count(kept):
            kept["turns"] += 1
            return kept["turns"]

        return collections.Counter(), count


@served(most=20)
class OfDefault(Base):
    def counted(self, kept=[0]):
        kept[0] += 1
        return kept[0]

    def forward(self, x):
        h = x[:, 0] * 0
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            if self.counted() > 20:
                h = h * 2
        OfDefault.counted.__defaults__[0][0] = 0
        return h


class Stepper:
    def __init__(self, cell):
        self.cell = cell
        self.n = 0

    def step(self, x, h):
        self.n += 1
        h = self.cell(x, h)
        return h * 2 if self.n > 20 else h


@served(most=20)
class OfBoundMethod(Base):
    def forward(self, x):
        step = Stepper(self.cell).step
        h = x[:, 0] * 0
        for t in range(x.size(1)):
            h = step(x[:, t], h)
        return h


@served(most=20)
class OfPartial(Base):
    def forward(self, x):
        def step(kept, h):
            kept[0] += 1
            return h * 2 if kept[0] > 20 else h

        step = functools.partial(step, [0])
        h = x[:, 0] * 0
        for t in range(x.size(1)):
            h = step(self.cell(x[:, t], h))
        return h


@served(most=20)
class OfBuiltinMethod(Base):
    def forward(self, x):
        count = itertools.count().__next__
        h = x[:, 0] * 0
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            if count() > 19:
                h = h * 2
        return h


@served()
class StateOfModule(Base):
    def forward(self, x):
        self.h = None
        for t in range(x.size(1)):
            self.h = self.lin(x[:, t]) if self.h is None else self.cell(x[:, t], self.h)
        h, self.h = self.h, None
        return h


@served()
class ListOfModule(Base):
    def forward(self, x):
        self.kept = []
        for t in range(x.size(1)):
            self.kept.append((self.lin(x[:, t]), x[:, t]))
        one, other = zip(*self.kept)
        self.kept = []
        return torch.stack(one, 1) + torch.stack(other, 1)


# --- lists that code takes apart after the loop ---


def tail(values):
    return values[-10:]


@served(most=10)
class LastTen(Base):
    def forward(self, x):
        return torch.stack(tail(self.steps(x)), 1)


@served(most=10)
class FirstTen(Base):
    def forward(self, x):
        return torch.stack(self.steps(x)[:10], 1)


@served(most=21)
class LastThirty(Base):
    def forward(self, x):
        return torch.stack(self.steps(x)[-30:], 1)


class Buffer(list):
    def add(self, value):
        self.append(value)
        del self[:-30]


@served(most=21)
class OfListSubclass(Base):
    def forward(self, x):
        values = Buffer()
        for t in range(x.size(1)):
            values.add(self.lin(x[:, t]))
        return torch.stack(list(values), 1)


@served(most=21)
class LastTwoHundred(Base):
    def forward(self, x):
        return torch.stack(self.steps(x)[-200:], 1)


@served(most=21)
class LastOfAttribute(Base):
    kept = 30

    def forward(self, x):
        return torch.stack(self.steps(x)[-self.kept :], 1)


@served(most=9)
class Deleted(Base):
    def forward(self, x):
        values = self.steps(x)
        del values[9:]
        return torch.stack(values, 1)


@served()
class SlicedModules(Base):
    kept = 1

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x):
        for layer in self.layers[: self.kept]:
            x = layer(x)
        return torch.stack(self.steps(x), 1)


@served(most=21)
class WithRowsOfTable(Base):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(30, 4))

    def forward(self, x):
        h = x[:, 0] * 0
        for value, row in zip(x.unbind(1), self.table.unbind(0)):
            h = self.cell(value + row, h)
        return h


@served(most=21)
class TakesWhileThereIsOne(Base):
    def forward(self, x):
        h = x[:, 0] * 0
        more = [x[:, 0]] * 30
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            if more:
                h = h + more.pop()
        return h


@served()
class TakesAll(Base):
    def forward(self, x):
        h = x[:, 0] * 0
        more = list(x.unbind(1))
        for _ in range(x.size(1)):
            h = self.cell(more.pop(), h)
        return h


@served()
class TakesFromQueue(Base):
    def forward(self, x):
        queue = [x[:, 0] * 0]
        for t in range(x.size(1)):
            queue.append(self.cell(x[:, t], queue.pop(0)))
        return queue[0]


class Settings:
    prefix = "text_"
    blocks = ("plain", "scaled")

    def scale(self, name="text_scale", count=2):
        return len(name[len(self.prefix) :]) + len((self.blocks * 4)[:count])


@served()
class SlicedSettings(Base):
    settings = Settings()

    def forward(self, x):
        return torch.stack(self.steps(x), 1) * self.settings.scale()


@dataclass
class Kept:
    values: list
    most: int = 30

    def tail(self):
        return self.values[-self.most :]


@served(most=21)
class TailOfObject(Base):
    def forward(self, x):
        return torch.stack(Kept(self.steps(x)).tail(), 1)


KEPT = []


def tail_of_global(most):
    return KEPT[-most:]


@served(most=21)
class TailOfGlobal(Base):
    def forward(self, x):
        for t in range(x.size(1)):
            KEPT.append(self.lin(x[:, t]))
        result = torch.stack(tail_of_global(30), 1)
        KEPT.clear()
        return result


def kept():
    return KEPT


def tail_of_call(most):
    return kept()[-most:]


@served(most=21)
class TailOfCall(Base):
    def forward(self, x):
        for t in range(x.size(1)):
            KEPT.append(self.lin(x[:, t]))
        result = torch.stack(tail_of_call(30), 1)
        KEPT.clear()
        return result


def every_thirtieth():
    return KEPT[::30]


@served(most=21)
class PartsOfGlobal(Base):
    def forward(self, x):
        for t in range(x.size(1)):
            KEPT.append(self.lin(x[:, t]))
        result = torch.stack(every_thirtieth(), 1)
        KEPT.clear()
        return result


@served(most=21)
class Islice(Base):
    def forward(self, x):
        return torch.stack(list(itertools.islice(self.steps(x), 30)), 1)


@served(most=9)
class ZipLonger(Base):
    def forward(self, x):
        return torch.stack([each for each, _ in zip(self.steps(x), range(9))], 1)


@served(most=6)
class ZipLongerByOne(Base):
    def forward(self, x):
        return torch.stack([each for each, _ in zip(self.steps(x), [1] * 6)], 1)


@served(least=4, most=6)
class EveryThird(Base):
    def forward(self, x):
        return torch.stack(self.steps(x)[::3], 1)


@served(least=2)
class Ends(Base):
    def forward(self, x):
        values = self.steps(x)
        return torch.stack(values[1:], 1), torch.stack(values[:-1], 1), values[::-1]


@served()
class OfTensor(Base):
    def forward(self, x):
        values = torch.stack(self.steps(x))
        return values[-20:], values[::3]


# --- numbers of turns after the loop ---


@served(least=5, most=5)
class Middle(Base):
    def forward(self, x):
        values = self.steps(x)
        return values[len(values) // 2]


@served(most=30)
class LengthDecides(Base):
    def forward(self, x):
        values = self.steps(x)
        result = torch.stack(values, 1)
        return result * 2 if len(values) > 30 else result


@served(most=21)
class LastTurnDecides(Base):
    def forward(self, x):
        for t in range(x.size(1)):
            x = x + self.lin(x[:, t])[:, None]
        return x * 2 if t > 20 else x


@served(least=2)
class FirstAndLast(Base):
    def forward(self, x):
        values = []
        count = x.size(1)
        for t in range(count):
            if t == 0:
                step = x[:, 1] - x[:, 0] if count > 1 else x[:, 0]
            elif t == count - 1:
                step = x[:, t] - x[:, t - 1]
            else:
                step = (x[:, t + 1] - x[:, t - 1]) / 2
            values.append(self.lin(step))
        return torch.stack(values, 1)


# --- regions ---


@served(least=5, most=5)
class RegionOfFewTurns(Base):
    def forward(self, x):
        h = x[:, 0] * 0
        for t in range(x.size(1)):
            with torch.set_grad_enabled(t == 0 or t >= x.size(1) - 2):
                h = self.cell(x[:, t], h)
        return h


@served()
class Autocast(Base):
    def forward(self, x):
        h = x[:, 0] * 0
        for t in range(x.size(1)):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                step = self.lin(x[:, t])
            h = torch.tanh(step.float() + h)
        return h


# --- an example of many turns: the runs that show the loop are short ---


@served(captured=40)
class LongExample(Base):
    def forward(self, x):
        return torch.stack(self.steps(x), 1)


@served(least=40, most=45, captured=40)
class LongExampleWithCounter(OfModule):
    def counted(self):
        return super().counted() - 80


@served(least=40, most=40, captured=40)
class LongExampleOfTwoLoops(Base):
    def forward(self, x):
        h = x[:, 0] * 0
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            if t > 20:
                h = h * 2
        return h


@served(least=40, most=40, captured=40)
class LongExampleDecidesLate(Base):
    def forward(self, x):
        h = x[:, 0] * 0
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            if t > 30:
                h = h * 2
        return h


def _run(model, x):
    x = x.clone().requires_grad_()
    result = model(x)
    first = result[0] if isinstance(result, tuple) else result
    (gradient,) = torch.autograd.grad(first.sum(), x)
    return result, gradient


@pytest.mark.parametrize(("model", "least", "most", "captured"), CASES)
def test_a_loop_serves_other_lengths_or_refuses_them(model, least, most, captured):
    torch.manual_seed(0)
    original = model()
    ir = lg.to_ir(original, (torch.randn(2, captured, 4),))
    for training, length in itertools.product((True, False), LENGTHS):
        rebuilt = lg.to_torch(ir, original.state_dict()).train(training)
        x = torch.randn(2, length, 4)
        if least <= length <= (most or length):
            expected = _run(copy.deepcopy(original).train(training), x)
            assert bitwise_equal(_run(rebuilt, x), expected), length
        else:
            with pytest.raises(AssumptionError):
                _run(rebuilt, x)


class KeepsState(Base):
    state = None

    def forward(self, x):
        h = x[:, 0] * 0
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
        self.state = h
        return h


def test_the_search_runs_a_model_a_few_times(monkeypatch):
    runs = []
    run = EagerTracer.run
    monkeypatch.setattr(EagerTracer, "run", lambda self: runs.append(self) or run(self))
    ir = lg.to_ir(KeepsState().eval(), (torch.randn(2, 9, 4),))
    assert "layergraph.loop(" in str(ir)
    # The example and its second run; two of other sizes, which the cell refuses at once; that of
    # one more turn, compared with itself and both ways with the example; and one run each of the
    # example's length, of many turns, of one and of none.
    assert len(runs) == 12


class TakesParts(nn.Module):
    """A projection into three parts, which code names, and three times the same computation."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.inner = nn.Linear(4, 12)

    def forward(self, tokens):
        parts = self.inner(self.table(tokens)).split(4, dim=-1)
        return torch.stack([part.tanh() * 2 for part in parts])


def test_one_run_shows_that_no_loop_depends_on_a_size(monkeypatch):
    runs = []
    run = EagerTracer.run
    monkeypatch.setattr(EagerTracer, "run", lambda self: runs.append(self) or run(self))
    model = TakesParts()
    ir = lg.to_ir(model, (torch.randint(10, (2, 12)),))
    assert len(runs) == 2
    tokens = torch.randint(10, (3, 7))
    assert bitwise_equal(lg.to_torch(ir, model.state_dict())(tokens), model(tokens))
