"""The capture inspects attributes of modules without running their code."""

from __future__ import annotations

import contextlib
import functools
import types
from collections import OrderedDict, UserList, defaultdict

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.testing import bitwise_equal

X = torch.randn(3, 4)


def refuses(*_args, **_kwargs):
    raise NotImplementedError("ask nothing of it")


class NoLength(tuple):
    __slots__ = ()
    __len__ = __eq__ = __hash__ = __bool__ = refuses


class NoCopy(dict):
    copy = items = __eq__ = refuses
    __hash__ = None


class NoListing(list):
    copy = __len__ = clear = extend = refuses


class NoSet(set):
    copy = __len__ = clear = update = refuses


class Ordered(OrderedDict):
    copy = refuses


class Model(nn.Module):
    def __init__(self, held):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.held = held

    def forward(self, x):
        return self.lin(x)


HELD = {
    "tuple": lambda: NoLength((1, -1)),
    "tuple of tensors": lambda: NoLength((torch.ones(2),)),
    "dict": lambda: NoCopy(a=1),
    "list": lambda: NoListing([1, torch.ones(2)]),
    "set": lambda: NoSet({1, 2}),
    "ordered": lambda: Ordered(a=1, b=[2]),
    "default": lambda: defaultdict(list, a=[1]),
    "user list": lambda: UserList([1]),
    "partial": lambda: functools.partial(refuses, 1),
    "partial method": lambda: types.MethodType(functools.partial(refuses, 1), X),
    "partial of autograd": lambda: functools.partial(torch.autograd.Function.apply),
    "builtin": lambda: X.add,
}


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("at", ["model", "layer"])
def test_an_attribute_does_no_harm(name, at):
    held = HELD[name]()
    model = Model(held if at == "model" else None)
    if at == "layer":
        model.lin.held = held
        model.lin.extra_repr = types.MethodType(functools.partial(lambda _, module: "", 1), model)
    ir = lg.to_ir(model, (X,))
    rebuilt = lg.to_torch(ir, model.state_dict())
    assert bitwise_equal(rebuilt(X), model(X))
    assert (model.held if at == "model" else model.lin.held) is held


class Notes(nn.Module):
    """Appends to an object that it holds, in each call."""

    def __init__(self, held):
        super().__init__()
        self.held = held

    def forward(self, x):
        if isinstance(self.held, OrderedDict):
            self.held["new"] = 1
            self.held.move_to_end(next(iter(self.held)))
        elif isinstance(self.held, dict):
            self.held["new"] = 1
        elif isinstance(self.held, set):
            self.held.add("new")
        else:
            self.held.append("new")
        return x + 1


@pytest.mark.parametrize(
    "make", [dict, OrderedDict, list, set, lambda: OrderedDict(a=1, b=2), lambda: defaultdict(int)]
)
def test_what_it_holds_is_put_back(make):
    model, wanted = Notes(make()), make()
    with contextlib.suppress(CaptureError):
        lg.to_ir(model, (X,))
    assert model.held == wanted
    assert list(model.held) == list(wanted)
    assert type(model.held) is type(wanted)
