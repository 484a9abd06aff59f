"""Arguments that have a default, given as containers or left out, whatever the default is."""

from __future__ import annotations

import collections
from typing import NamedTuple

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal

X = torch.randn(3, 4)


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)


class Pair(NamedTuple):
    first: object
    second: object = None


class Fields(collections.OrderedDict):
    """Entries can be read as attributes, or by their place: as libraries do it for results."""

    def __init__(self, **entries):
        super().__init__(entries)

    def __getattr__(self, name):
        return self[name]


def _module(forward):
    return type("Model", (Base,), {"forward": forward})()


def _rebuilt(model, args=(), kwargs=None):
    return lg.to_torch(lg.to_ir(model, args, kwargs or {}), model.state_dict())


def _first(value):
    while not isinstance(value, torch.Tensor):
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return value


def _used(self, x, state=None):
    return self.lin(x) if state is None else self.lin(x) * _first(state)


GIVEN = {
    "a tuple": (X, X),
    "a tuple with None": (X, None),
    "tuples in a list": [(X, X), (X, X)],
    "a dict of tuples": {"a": (X,), "b": None},
    "a named tuple": Pair(X),
    "a named tuple of named tuples": Pair(Pair(X, 3), Pair(X)),
    "a subclass of dict": Fields(first=X, second=(X,)),
    "a dict that makes its entries": collections.defaultdict(list, {"a": [X]}),
}


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("name", GIVEN)
def test_containers_in_the_place_of_none(name, by_name):
    args, kwargs = ((X,), {"state": GIVEN[name]}) if by_name else ((X, GIVEN[name]), {})
    model = _module(_used)
    rebuilt = _rebuilt(model, args, kwargs)
    assert bitwise_equal(rebuilt(*args, **kwargs), model(*args, **kwargs))
    for other in ((), (None,), (X,), ((X, None, X),), (Pair(1),)):
        with pytest.raises(AssumptionError):
            rebuilt(X, *other)


def test_containers_pass_through_flattening_and_modes():
    class Outer(Base):
        def __init__(self):
            super().__init__()
            self.inner = _module(_used)

        def forward(self, x, state=None):
            return self.inner(x, state) if self.training else self.inner(x, state) * 2

    model = Outer()
    ir = lg.to_ir(model, (X, (X, None)))
    for mode in (True, False):
        wanted = model.train(mode)(X, (X, None))
        rebuilt = lg.to_torch(ir, model.state_dict()).train(mode)
        assert bitwise_equal(rebuilt(X, (X, None)), wanted)
        one = lg.to_torch(ir.in_mode(training=mode), model.state_dict())
        assert bitwise_equal(one(X, (X, None)), wanted)


DEFAULTS = {
    "a named tuple of named tuples": (Pair((1, 2), Pair(3, 4)), lambda v: v.second.first),
    "a dict with a named tuple": ({"k": Pair(1, [2])}, lambda v: v["k"].second[0]),
    "a tensor": (torch.full((4,), 2.0), lambda v: v),
    "a list of tensors": ([torch.full((4,), 2.0)], lambda v: v[0]),
    "a named tuple with a tensor": (Pair(torch.full((4,), 2.0)), lambda v: v.first),
    "a dtype": (torch.float64, lambda v: torch.ones(4, dtype=v)),
    "a slice": (slice(0, 1), lambda v: torch.ones(4)[v]),
    "a function": (torch.ones, lambda v: v(4)),
}


@pytest.mark.parametrize("only_by_name", [False, True])
@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_that_are_left_out(name, only_by_name):
    default, read = DEFAULTS[name]

    def forward(self, x, options=default):
        return self.lin(x) * read(options)

    def by_name(self, x, *, options=default):
        return self.lin(x) * read(options)

    model = _module(by_name if only_by_name else forward)
    rebuilt = _rebuilt(model, (X,))
    assert bitwise_equal(rebuilt(X), model(X))
    with pytest.raises(AssumptionError):
        rebuilt(X, options=0)


def test_a_tensor_in_the_signature_of_a_helper():
    def helper(x, *, factor=torch.full((4,), 3.0)):  # noqa: B008
        return x * factor

    class Helped(Base):
        def forward(self, x, scaled=helper):
            return scaled(self.lin(x))

    model = Helped()
    assert bitwise_equal(_rebuilt(model, (X,))(X), model(X))


@pytest.mark.parametrize("name", ["class", "a-b", "1"])
def test_a_name_that_no_parameter_can_have(name):
    model = _module(lambda self, x, **others: x * others[name])
    with pytest.raises(CaptureError, match=f"'{name}' has a name"):
        lg.to_ir(model, (X,), {name: X})


def test_a_container_that_cannot_be_copied():
    class Fixed(tuple):
        def __new__(cls, first, second):
            return super().__new__(cls, (first, second))

    with pytest.raises(CaptureError, match="Fixed"):
        lg.to_ir(_module(_used), (X, Fixed(X, X)))
