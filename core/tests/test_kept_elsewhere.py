"""State, and functions of torch, that code reaches only through closures, lists and iterators."""

import os
import sys
import types

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal

X = torch.arange(12.0).reshape(3, 4)

HELPERS = """
import dataclasses
import enum
import functools
import types

import numpy as np
import torch

source = torch.Generator().manual_seed(5)
dice = np.random.default_rng(5)
view = types.MappingProxyType({"calls": [0]})
asked = [torch.is_grad_enabled]
nested = {"a": {"b": torch.is_grad_enabled}}
space = types.SimpleNamespace(asks=torch.is_grad_enabled)
rare = 0


class Color(enum.Enum):
    RED = "red"

    def step(self):
        self.calls = getattr(self, "calls", 0) + 1
        return self.calls


@dataclasses.dataclass(slots=True)
class Counts:
    calls: int = 0


counts = Counts()


class Holder:
    def __init__(self):
        self.asks = torch.is_grad_enabled


holder = Holder()


def by_slot():
    counts.calls += 1
    return counts.calls


def by_member():
    return Color("red").step()


def by_view():
    view["calls"][0] += 1
    return view["calls"][0]


def by_generator():
    return torch.rand(4, generator=source)


def by_array():
    return torch.from_numpy(dice.random(4, dtype=np.float32))


def every_third():
    global rare
    rare += 1
    return 2.0 if rare % 3 == 0 else 1.0


def after_many():
    global rare
    rare += 1
    return 2.0 if rare > 500 else 1.0


def counted():
    global rare
    rare += 1
    return 3.0


def by_list():
    return asked[0]()


def by_nested_dict():
    return nested["a"]["b"]()


def by_namespace():
    return space.asks()


def by_object():
    return holder.asks()


def by_default(asks=[torch.is_grad_enabled]):
    return asks[0]()


class Asking:
    asks = staticmethod(torch.is_grad_enabled)

    def by_method(self, asks=torch.is_grad_enabled):
        return asks()


def made():
    return Asking()


def by_class():
    return made().asks()


def by_default_of_a_method():
    return made().by_method()


pair = 1, torch.is_grad_enabled
late = functools.partial(torch.is_grad_enabled)


def by_tuple():
    return pair[1]()


def by_partial():
    return late()
"""


@pytest.fixture
def helpers(monkeypatch):
    module = types.ModuleType("helpers_kept_elsewhere")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(HELPERS, "helpers_kept_elsewhere.py", "exec"), vars(module))
    return module


def calling(helpers, name):
    class Model(nn.Module):
        def forward(self, x):
            return x * getattr(helpers, name)()

    return Model()


def captured(model, *, with_inputs):
    return lg.to_ir(model, (X,)) if with_inputs else lg.to_ir(model)


both_ways = pytest.mark.parametrize("with_inputs", [True, False], ids=["run", "traced"])


@both_ways
@pytest.mark.parametrize(
    "name", "by_slot by_member by_view by_generator by_array every_third after_many".split()
)
def test_what_is_kept_elsewhere_is_refused_and_put_back(helpers, name, with_inputs):
    before = [getattr(helpers, name)() for _ in range(2)]
    exec(compile(HELPERS, "helpers_kept_elsewhere.py", "exec"), vars(helpers))
    with pytest.raises(CaptureError, match=r"helpers_kept_elsewhere|forward"):
        captured(calling(helpers, name), with_inputs=with_inputs)
    # The capture does not change the original's next results.
    after = [getattr(helpers, name)() for _ in range(2)]
    assert all(
        bitwise_equal(*map(torch.as_tensor, pair)) for pair in zip(before, after, strict=True)
    )


@both_ways
def test_a_count_by_which_nothing_is_decided_is_left_alone(helpers, with_inputs):
    model = calling(helpers, "counted")
    rebuilt = lg.to_torch(captured(model, with_inputs=with_inputs))
    assert helpers.rare == 0
    assert bitwise_equal(rebuilt(X), model(X))


ASKING = "by_list by_nested_dict by_namespace by_object by_default by_class by_default_of_a_method"


@both_ways
@pytest.mark.parametrize("name", [*ASKING.split(), "by_tuple", "by_partial"])
def test_what_code_asks_through_what_it_keeps_is_noted(helpers, name, with_inputs):
    class Model(nn.Module):
        def forward(self, x):
            return x * 2 if getattr(helpers, name)() else x

    kept = helpers.asked[0], helpers.nested["a"]["b"], helpers.space.asks, helpers.holder.asks
    rebuilt = lg.to_torch(captured(Model(), with_inputs=with_inputs))
    assert bitwise_equal(rebuilt(X), X * 2)
    with torch.no_grad():
        if with_inputs:
            assert bitwise_equal(rebuilt(X), X)
        else:
            with pytest.raises(AssumptionError):
                rebuilt(X)
    # The replacements of the capture are gone.
    assert all(each is torch.is_grad_enabled for each in kept)
    assert helpers.asked == [torch.is_grad_enabled]


def test_what_inference_mode_made_is_noted():
    class Model(nn.Module):
        def forward(self, x):
            y = x + 1
            return y * 2 if y.is_inference() else y

    rebuilt = lg.to_torch(lg.to_ir(Model(), (X,)))
    assert bitwise_equal(rebuilt(X), X + 1)
    with torch.inference_mode(), pytest.raises(AssumptionError):
        rebuilt(X)


# --- the environment ---


def _set():
    os.environ["KEPT_ELSEWHERE"] = "2"
    return 1


def _set_default():
    return float(os.environ.setdefault("KEPT_ELSEWHERE_TOO", "1"))


def _pop():
    return 1 if os.environ.pop("KEPT_ELSEWHERE", None) else 2


def _update():
    os.environ.update(KEPT_ELSEWHERE="3")
    return 1


def _count():
    return len(os.environ)


def _list():
    return 2 if "KEPT_ELSEWHERE" in list(os.environ) else 1


def _copy():
    return float(os.environ.copy().get("KEPT_ELSEWHERE", 1))


@both_ways
@pytest.mark.parametrize("read", [_set, _set_default, _pop, _update, _count, _list, _copy])
def test_the_environment_is_neither_changed_nor_read_as_a_whole(monkeypatch, read, with_inputs):
    monkeypatch.setenv("KEPT_ELSEWHERE", "1")

    class Model(nn.Module):
        def forward(self, x):
            return x * read()

    captured(nn.ReLU(), with_inputs=with_inputs)  # an import by torch may change it
    before = dict(os.environ)
    with pytest.raises(CaptureError, match=f"environment(.|\n)*{read.__name__}|{read.__name__}"):
        captured(Model(), with_inputs=with_inputs)
    assert dict(os.environ) == before


@both_ways
def test_bytes_of_the_environment_are_noted(monkeypatch, with_inputs):
    monkeypatch.setenv("KEPT_ELSEWHERE", "1")

    class Model(nn.Module):
        def forward(self, x):
            return x * 2 if os.environb.get(b"KEPT_ELSEWHERE") == b"1" else x

    rebuilt = lg.to_torch(captured(Model(), with_inputs=with_inputs))
    assert bitwise_equal(rebuilt(X), X * 2)
    monkeypatch.setenv("KEPT_ELSEWHERE", "2")
    with pytest.raises(AssumptionError, match="KEPT_ELSEWHERE"):
        rebuilt(X)


# --- the model itself ---


class _Briefly(nn.Module):
    def __init__(self, name, value):
        super().__init__()
        self.drop, self.name, self.value = nn.Dropout(0.5), name, value

    def forward(self, x):
        was = getattr(self.drop, self.name)
        setattr(self.drop, self.name, self.value)
        x = self.drop(x)
        setattr(self.drop, self.name, was)
        return x


@pytest.mark.parametrize(
    ("name", "value", "with_inputs"),
    [("training", False, False), ("p", 0.1, False), ("p", 0.1, True)],
)
def test_a_leaf_that_is_changed_for_a_call_is_refused(name, value, with_inputs):
    with pytest.raises(CaptureError, match="change of 'drop' that lasts for a call"):
        captured(_Briefly(name, value), with_inputs=with_inputs)


@pytest.mark.parametrize("name", ["children", "named_children", "modules", "named_modules"])
def test_an_override_that_leaves_modules_out_is_refused(name):
    first = ("", nn.ReLU()) if name.startswith("named") else nn.ReLU()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return self.drop(x)

    setattr(Model, name, lambda self, *args, **kwargs: iter([first]))
    with pytest.raises(CaptureError, match=f"{name}\\(\\), which lists others"):
        lg.to_ir(Model(), (X,))


def test_a_region_that_a_model_keeps_holds_nothing_of_ours():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.region = nn.Linear(4, 4), torch.autocast("cpu", torch.bfloat16)

        def forward(self, x):
            with self.region:
                return self.linear(x)

    model = Model()
    model(X)
    before = {*vars(model.region)}
    lg.to_ir(model, (X,))
    assert {*vars(model.region)} == before
