"""Lazy objects and proxies in reach of a model. Reading one runs code, or raises an error."""

from __future__ import annotations

import functools
import sys
import types

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.testing import bitwise_equal

_SPECIAL = (
    "__bool__ __call__ __contains__ __eq__ __getattr__ __getitem__ __hash__ __iter__ __len__ "
    "__ne__ __repr__ __str__"
).split()
_PROPERTIES = (
    "__class__ __closure__ __code__ __dict__ __func__ __module__ __self__ __wrapped__".split()
)


def _fails(*_args, **_kwargs):
    raise RuntimeError("working outside of request context")


_MEMBERS = dict.fromkeys(_SPECIAL, _fails) | {name: property(_fails) for name in _PROPERTIES}
PROXY = object.__new__(type("Proxy", (), _MEMBERS | {"__slots__": ()}))

SCALE = torch.full((3,), 2.0)
NAMED = {"proxy": PROXY}


class Settings:
    proxy = PROXY


def with_default(x, default=PROXY):
    return x * 2


def _enclosing():
    proxy, tensor = PROXY, torch.full((3,), 3.0)

    def scaled(x, power=1):
        assert power == 1 or proxy is None
        return x * tensor

    return scaled


scaled = _enclosing()


class Model(nn.Module):
    proxy_of_class = PROXY

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.held = [PROXY, {"proxy": PROXY}, (PROXY,)]
        self.__dict__["proxy"] = PROXY

    def forward(self, x):
        y = with_default(self.linear(x)) * SCALE
        return y if Settings.proxy is None or NAMED is None else y + 1


class Enclosing(Model):
    def forward(self, x):
        return scaled(self.linear(x))


@pytest.fixture(autouse=True)
def module_with_a_proxy(monkeypatch):
    module = types.ModuleType("request_of_a_web_application")
    vars(module).update(request=PROXY)
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize("cls", [Model, Enclosing])
@pytest.mark.parametrize("way", ["run", "symbols"])
def test_a_proxy_is_not_touched(cls, way):
    model, x = cls(), torch.randn(2, 3)
    if cls is Enclosing and way == "symbols":
        pytest.skip("a tensor that a function encloses needs a run")
    ir = lg.to_ir(model, (x,)) if way == "run" else lg.to_ir(model)
    rebuilt = lg.to_torch(ir, model.state_dict())
    for each in (x, torch.randn(5, 3)):
        assert bitwise_equal(rebuilt(each), model(each))


class Scale:
    def __init__(self):
        self.factor = torch.full((3,), 4.0)

    def __call__(self, x):
        return x * self.factor

    def method(self, x):
        return x + self.factor


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return self.scale(x)


@pytest.mark.parametrize(
    "scale",
    [
        functools.partial(torch.mul, torch.full((3,), 4.0)),
        functools.partial(functools.partial(torch.add, alpha=2), other=torch.full((3,), 4.0)),
        Scale(),
        Scale().method,
    ],
    ids=["partial", "partials", "callable", "method"],
)
def test_a_function_holds_a_tensor(scale):
    model, x = Scaled(scale), torch.randn(2, 3)
    rebuilt = lg.to_torch(lg.to_ir(model, (x,)), model.state_dict())
    assert bitwise_equal(rebuilt(x), model(x))


def test_a_function_that_wraps_itself_ends():
    def wrapped(x):
        return x + int(x.shape[0])

    wrapped.__wrapped__ = wrapped
    vars(sys.modules[__name__])["wraps_itself"] = wrapped

    class Calls(nn.Module):
        def forward(self, x):
            return wraps_itself(x)  # noqa: F821

    x = torch.randn(2, 3)
    assert bitwise_equal(lg.to_torch(lg.to_ir(Calls(), (x,)))(x), Calls()(x))
