"""Models that keep tables in dicts by sizes: the rebuilt model takes every size."""

from __future__ import annotations

import copy
import itertools
from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import layergraph as lg
from core.tests.traps.harness import Base
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal


class Kept(Base):
    """It keeps a table for each length."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def table(self, x):
        return torch.arange(x.shape[1]).float()[:, None].cos()

    def kept(self, x, key):
        if key not in self.cache:
            self.cache[key] = self.table(x)
        return self.cache[key]

    def forward(self, x):
        return self.lin(x) * self.kept(x, x.shape[1])


class Called(Kept):
    """It has been called with some lengths before."""

    def __init__(self):
        super().__init__()
        for count in (3, 6, 12):
            self(torch.rand(2, count, 4))


class ByTuple(Kept):
    """The key has a shape, a dtype and a device; the table follows from a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.tensor([1.0, 0.1, 0.01, 0.001]))

    def table(self, x):
        return torch.outer(torch.arange(x.shape[1]), self.steps).sin()

    def forward(self, x):
        return self.lin(x) * self.kept(x, ("sin", x.shape[1:], x.dtype, x.device))


class Caught(Kept):
    def kept(self, x, key):
        try:
            return self.cache[key]
        except KeyError:
            return self.cache.setdefault(key, self.table(x))


class Ordered(Kept):
    """It drops the table that it has used least recently."""

    def __init__(self):
        super().__init__()
        self.cache = OrderedDict()

    def kept(self, x, key):
        if key in self.cache:
            self.cache.move_to_end(key)
            return self.cache[key]
        if len(self.cache) > 1:
            self.cache.popitem(last=False)
        self.cache[key] = self.table(x)
        return self.cache[key]


class Bounded(Kept):
    def kept(self, x, key):
        if self.cache.get(key) is None:
            if len(self.cache) > 2:
                self.cache.clear()
            self.cache[key] = self.table(x)
        return self.cache[key]


class Shared(Base):
    """Two layers share one dict."""

    def __init__(self):
        super().__init__()
        self.one, self.other = ByTuple(), ByTuple()
        self.other.cache = self.one.cache

    def forward(self, x):
        y = self.one(x)
        return self.other(torch.nn.functional.dropout(y, 0.5, self.training))


def memo(function):
    kept = {}

    def wrapped(*args):
        if args not in kept:
            kept[args] = function(*args)
        return kept[args]

    return wrapped


@memo
def mask(rows, columns):
    return torch.ones(rows, columns).tril()


class InClosure(Base):
    def forward(self, x):
        y = self.lin(x)
        return mask(x.shape[1], x.shape[1]) @ y


@pytest.mark.parametrize(
    "make", [Kept, Called, ByTuple, Caught, Ordered, Bounded, Shared, InClosure]
)
def test_each_call_computes_the_table(make, tmp_path):
    model = make()
    held = dict(getattr(model, "cache", {}))
    ir = lg.to_ir(model, (torch.rand(2, 6, 4),))
    assert getattr(model, "cache", {}) == held
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    for training in (True, False):
        original = copy.deepcopy(model).train(training)
        rebuilt = lg.to_torch(ir, model.state_dict()).train(training)
        loaded = lg.load_model(tmp_path / "m.safetensors").train(training)
        for count in (9, 3, 1, 7, 9):
            results = []
            for each in (original, rebuilt, loaded):
                torch.manual_seed(count)
                x = torch.rand(3, count, 4, requires_grad=True)
                given = each(x)
                results.append((given, torch.autograd.grad(given.square().sum(), x)))
            assert bitwise_equal(results[0], results[1])
            assert bitwise_equal(results[0], results[2])


class OfOneLength(Called):
    """One length has a table of its own."""

    def __init__(self):
        super().__init__()
        self.cache[7] = torch.zeros(7, 1)


class Looked(Kept):
    """Besides, it looks up lengths in a dict that it does not fill."""

    def __init__(self):
        super().__init__()
        self.scales = {7: torch.tensor(2.0), 9: torch.tensor(3.0)}

    def forward(self, x):
        return super().forward(x) * self.scales.get(x.shape[1], torch.tensor(1.0))


class LookedTwice(Looked):
    """No input has the sizes under which it looks."""

    def __init__(self):
        super().__init__()
        self.scales = {22: torch.tensor(2.0)}

    def forward(self, x):
        return Kept.forward(self, x) * self.scales.get(x.shape[1] * 2, torch.tensor(1.0))


class ByBatch(Kept):
    """The key lacks the size that the table depends on."""

    def forward(self, x):
        return self.lin(x) * self.kept(x, x.shape[0])[: x.shape[1]]


class OfOthers(Kept):
    """The table depends on the number of tables before it."""

    def table(self, x):
        return super().table(x) * (1 + len(self.cache))


class Crossed(Kept):
    """Two sizes share a dict, and have different tables."""

    def forward(self, x):
        rows = self.kept(x[:, :1].expand(-1, x.shape[0], -1), x.shape[0]) + 1
        return self.lin(x) * self.kept(x, x.shape[1]) * rows.sum()


@pytest.mark.parametrize("make", [OfOneLength, Looked, LookedTwice, ByBatch, OfOthers, Crossed])
def test_no_call_reads_another_table(make):
    model = make()
    try:
        ir = lg.to_ir(model, (torch.rand(2, 6, 4),))
    except CaptureError:
        return
    for order in itertools.permutations([(3, 7), (3, 3), (3, 6), (2, 11)]):
        original, rebuilt = copy.deepcopy(model), lg.to_torch(ir, model.state_dict())
        for shape in order:
            x = torch.rand(*shape, 4)
            try:
                given = rebuilt(x)
            except AssumptionError:
                original(x)
                continue
            assert bitwise_equal(given, original(x))


class OfNumbers(Kept):
    def table(self, x):
        return super().table(x) * x.mean()


class Trained(Kept):
    def table(self, x):
        return super().table(x) * self.lin.bias.detach()


class Random(Kept):
    def table(self, x):
        return torch.rand(x.shape[1], 1)


@pytest.mark.parametrize("make", [OfNumbers, Trained, Random])
def test_a_table_of_more_than_sizes_is_refused(make):
    with pytest.raises(CaptureError, match=r"assigns self\.cache"):
        lg.to_ir(make(), (torch.rand(2, 6, 4),))


@dataclass
class Result:
    hidden: torch.Tensor
    last: torch.Tensor | None = None


class InFields(Called):
    """Its result is an object, whose tensors later calls compare by their bits."""

    def forward(self, x):
        return Result(super().forward(x))


def test_a_result_with_fields():
    model = InFields()
    rebuilt = lg.to_torch(lg.to_ir(model, (torch.rand(2, 6, 4),)), model.state_dict())
    for count in (9, 3, 1, 7):
        x = torch.rand(3, count, 4)
        assert bitwise_equal(rebuilt(x).hidden, model(x).hidden)


class WritesItsSettings(nn.Module):
    """The state dict holds an entry that is no tensor."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.tables = {}

    def state_dict(self, *args, **kwargs):
        return super().state_dict(*args, **kwargs) | {"_metadata": {"width": 4}}

    def forward(self, x):
        size = x.shape[0]
        if size not in self.tables:
            self.tables[size] = torch.arange(size).float()
        return self.lin(x) + self.tables[size][:, None]


def test_a_table_beside_an_entry_that_is_no_tensor():
    with pytest.raises(CaptureError, match="makes its own state dict"):
        lg.to_ir(WritesItsSettings(), (torch.randn(3, 4),))
