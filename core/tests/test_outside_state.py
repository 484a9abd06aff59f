"""State that a model's code keeps outside the model, in Python modules without models."""

import contextlib
import importlib
import json
import os
import queue
import sys
import textwrap

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal

X = torch.arange(12.0).reshape(3, 4)

HELPERS = """
import collections
import contextvars
import ctypes
import dataclasses
import fractions
import functools
import io
import itertools
import os
import queue
import random
import threading
import types
import weakref
from array import array

import numpy as np

steps = 0
history, registry = [], {}
recent = collections.deque(maxlen=4)
seen = set()
tally = collections.Counter()
ordered = collections.OrderedDict(a=1, b=2)
numbers, turns = itertools.count(1), itertools.cycle([1, 2])
line = iter([1, 2, 3, 4, 5, 6, 7, 8])
own, dice = threading.local(), random.Random(3)
generator, old_generator = np.random.default_rng(3), np.random.RandomState(3)
counts, raw, packed = np.zeros(1), bytearray(1), array("l", [0])
context = contextvars.ContextVar("context", default=0)
space = types.SimpleNamespace(n=0)
box = [[0]]


def _endless():
    n = 0
    while True:
        n += 1
        yield n


made = _endless()


@dataclasses.dataclass
class Settings:
    calls: int = 0
    inner: dict = dataclasses.field(default_factory=dict)


settings = Settings()


class Meter:
    __slots__ = ("n",)
    shared = 0
    log = []

    def __init__(self):
        self.n = 0

    def step(self):
        Meter.shared += 1
        return Meter.shared

    @staticmethod
    def note():
        Meter.log.append(1)
        return len(Meter.log)


meter = Meter()


def by_global():
    global steps
    steps += 1
    return steps


def by_list():
    history.append(1)
    return len(history)


def by_nested_list():
    box[0][0] += 1
    return box[0][0]


def by_dict():
    registry["n"] = registry.get("n", 0) + 1
    return registry["n"]


def by_deque():
    recent.append(1)
    return len(recent)


def by_set():
    seen.add(len(seen))
    return len(seen)


def by_counter():
    tally["n"] += 1
    return tally["n"]


def by_order():
    ordered.move_to_end(next(iter(ordered)))
    return ordered[next(iter(ordered))]


def by_count():
    return next(numbers)


def by_cycle():
    return next(turns)


def by_iterator():
    return next(line)


def by_generator():
    return next(made)


def by_thread():
    own.n = getattr(own, "n", 0) + 1
    return own.n


def by_chance():
    return dice.random()


def by_numpy():
    return float(generator.random())


def by_old_numpy():
    return float(old_generator.rand())


def by_array():
    counts[0] += 1
    return float(counts[0])


def by_bytes():
    raw[0] += 1
    return raw[0]


number, text = ctypes.c_int(0), io.StringIO("some text that is long enough")
pair, view = (ctypes.c_int * 2)(), memoryview(bytearray(2))


def by_ctypes():
    number.value += 1
    pair[1] += 1
    return number.value + pair[1]


def by_memoryview():
    view[0] += 1
    return view[0]


def by_text():
    text.read(1)
    return text.tell()


def by_packed():
    packed[0] += 1
    return packed[0]


def by_context():
    context.set(context.get() + 1)
    return context.get()


def by_namespace():
    space.n += 1
    return space.n


def by_dataclass():
    settings.calls += 1
    return settings.calls


def by_field():
    settings.inner["n"] = settings.inner.get("n", 0) + 1
    return settings.inner["n"]


def by_class():
    return meter.step()


def by_static_method():
    return Meter.note()


def by_default(kept=[]):
    kept.append(1)
    return len(kept)


def by_keyword_default(*, kept={}):
    kept["n"] = kept.get("n", 0) + 1
    return kept["n"]


def by_attribute():
    by_attribute.n = getattr(by_attribute, "n", 0) + 1
    return by_attribute.n


def _closed():
    n = 0

    def inner():
        nonlocal n
        n += 1
        return n

    return inner


by_closure = _closed()
by_partial = functools.partial(lambda kept: kept.append(1) or len(kept), [])


@functools.singledispatch
def by_dispatch(value):
    return by_list()


def by_dispatched():
    return by_dispatch("a")


@functools.cache
def _only_one():
    return Settings()


def by_only_one():
    _only_one().calls += 1
    return _only_one().calls


# What is kept, and does not matter.

_memo, _weak = {}, weakref.WeakValueDictionary()


def remembered(n):
    if n not in _memo:
        _memo[n] = n * 2
    return _memo[n]


def by_environment():
    return float(os.environ.get("OUTSIDE_SCALE", "1"))


def counts_only(x):
    global steps
    steps += 1
    tally["calls"] += 1
    return x * 2


@functools.lru_cache(16)
def shape_of(shape, heads):
    return (*shape[:-1], heads, shape[-1] // heads)


def split(x, heads):
    return x.reshape(shape_of(tuple(x.shape), heads))


@functools.lru_cache
def positions(n):
    import torch

    return torch.arange(n)


class Recipes:
    @functools.lru_cache
    def of(self, n):
        return n + 1

    @staticmethod
    @functools.cache
    def half(n):
        return n // 2


recipes = Recipes()


@functools.lru_cache
def plan(fraction):
    return [fraction]


@functools.lru_cache
def table(fraction):
    import torch

    return torch.arange(4) * float(fraction)


HALF = fractions.Fraction(1, 2)
"""


@pytest.fixture
def helpers(tmp_path, monkeypatch):
    """Return a new library for each test."""
    (tmp_path / "outside_helpers.py").write_text(textwrap.dedent(HELPERS))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield importlib.import_module("outside_helpers")
    sys.modules.pop("outside_helpers", None)


class Model(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        type(self).function = staticmethod(function)

    def forward(self, x):
        return type(self).function(self, x)


def _model(function):
    class Fresh(Model):
        pass

    return Fresh(function)


KEPT = sorted(
    line.split()[1].partition("(")[0] for line in HELPERS.splitlines() if line.startswith("def by_")
)
KEPT = [name for name in KEPT if name not in ("by_dispatch", "by_environment")]
KEPT += ["by_closure", "by_partial"]


@pytest.mark.parametrize("inputs", [True, False])
@pytest.mark.parametrize("name", KEPT)
def test_what_a_library_keeps_is_no_constant(helpers, name, inputs):
    model = _model(lambda self, x: x * getattr(helpers, name)())
    with pytest.raises(CaptureError, match=r"(?s)outside_helpers.*line|line.*outside_helpers"):
        lg.to_ir(model, (X,) if inputs else None)


@pytest.mark.parametrize("name", [name for name in KEPT if name != "by_generator"])
def test_what_a_library_keeps_is_put_back(helpers, name):
    twice = [getattr(helpers, name)(), getattr(helpers, name)()]
    sys.modules.pop("outside_helpers")
    again = importlib.import_module("outside_helpers")
    model = _model(lambda self, x: x * getattr(again, name)())
    with pytest.raises(CaptureError):
        lg.to_ir(model, (X,))
    assert [getattr(again, name)(), getattr(again, name)()] == twice


def test_what_does_not_matter_is_no_fault(helpers):
    model = _model(lambda self, x: helpers.counts_only(x))
    rebuilt = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    assert bitwise_equal(rebuilt(X), X * 2)
    assert (helpers.steps, dict(helpers.tally)) == (0, {})


def test_sizes_in_a_memo_are_ints_afterwards(helpers):
    model = _model(lambda self, x: torch.zeros(helpers.remembered(x.shape[0])) + x.sum())
    with contextlib.suppress(CaptureError):
        rebuilt = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
        assert bitwise_equal(rebuilt(X), model(X))
    assert model(X).shape == (6,)
    json.dumps({str(key): value for key, value in helpers._memo.items()})


@pytest.mark.parametrize(
    "function",
    [
        lambda helpers, x: helpers.split(x, 2).sum(-1),
        lambda helpers, x: x[:, : helpers.recipes.half(4)] + helpers.recipes.of(x.shape[0]),
        lambda helpers, x: x + helpers.positions(x.shape[0])[:, None],
    ],
    ids=["shape", "methods", "tensor"],
)
def test_cached_helpers_follow_sizes_and_stay_as_they_were(helpers, function):
    caches = (helpers.shape_of, helpers.positions, helpers.Recipes.of, helpers.Recipes.half)
    for model in (_model(lambda self, x: function(helpers, x)) for _ in range(2)):
        rebuilt = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
        for x in (X, torch.randn(5, 4)):
            assert bitwise_equal(rebuilt(x), model(x))
    assert all(type(each).__name__ == "_lru_cache_wrapper" for each in caches[:3])


def test_a_cache_gives_no_tensor_of_a_capture_without_inputs(helpers):
    model = _model(lambda self, x: x + helpers.positions(4))
    lg.to_ir(model)
    assert bitwise_equal(helpers.positions(4), torch.arange(4))
    assert bitwise_equal(model(X), X + torch.arange(4))


@pytest.mark.parametrize("args", [(X,), None])
def test_a_cached_result_is_one_object(helpers, args):
    model = _model(
        lambda self, x: x * (2 if helpers.plan(helpers.HALF) is helpers.plan(helpers.HALF) else 3)
    )
    rebuilt = lg.to_torch(lg.to_ir(model, args), model.state_dict())
    assert bitwise_equal(rebuilt(X), X * 2)


@pytest.mark.parametrize("args", [(X,), None])
def test_a_cached_result_may_not_grow(helpers, args):
    def grow(self, x):
        helpers.plan(helpers.HALF).append(1)
        return x * len(helpers.plan(helpers.HALF))

    with pytest.raises(CaptureError, match=r"plan\(\)"):
        lg.to_ir(_model(grow), args)
    assert helpers.plan(helpers.HALF) == [helpers.HALF]


def test_a_cached_tensor_is_computed_in_the_graph(helpers):
    model = _model(lambda self, x: x + helpers.table(helpers.HALF) + helpers.table(helpers.HALF))
    rebuilt = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    assert bitwise_equal(rebuilt(X), model(X))
    assert helpers.table.cache_info().misses == 1


def test_a_number_from_the_environment_is_refused(helpers):
    model = _model(lambda self, x: x * helpers.by_environment())
    with pytest.raises(CaptureError, match="OUTSIDE_SCALE"):
        lg.to_ir(model, (X,))


@pytest.mark.parametrize("inputs", [True, False])
@pytest.mark.parametrize(
    "read",
    [
        lambda: os.environ.get("OUTSIDE_SWITCH") == "1",
        lambda: os.getenv("OUTSIDE_SWITCH", "no") != "no",
        lambda: "OUTSIDE_SWITCH" in os.environ,
    ],
)
def test_a_switch_in_the_environment_is_checked(read, inputs, monkeypatch):
    monkeypatch.delenv("OUTSIDE_SWITCH", raising=False)
    model = _model(lambda self, x: x * 2 if read() else x + 1)
    rebuilt = lg.to_torch(lg.to_ir(model, (X,) if inputs else None), model.state_dict())
    assert bitwise_equal(rebuilt(X), model(X))
    monkeypatch.setenv("OUTSIDE_SWITCH", "1")
    with pytest.raises(AssumptionError, match="OUTSIDE_SWITCH"):
        rebuilt(X)


def test_a_trace_function_of_others_stays(helpers):
    called = []

    def trace(frame, event, arg):
        called.append(frame.f_code.co_name)

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        lg.to_ir(_model(lambda self, x: helpers.counts_only(x)), (X,))
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)
    assert "counts_only" in called


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(y=d["x"] + 1),
        lambda d: d.pop("x"),
        lambda d: d.update(x=d["x"] * 2),
        lambda d: d["parts"].append(d["x"]),
        lambda d: d["parts"].insert(0, d["x"] * 2),
        lambda d: d["parts"].clear(),
        lambda d: d.update({key: d.pop(key) for key in [*d]}),
        lambda d: d.setdefault("n", 3),
        lambda d: d["options"].update(deep=True),
    ],
)
def test_dicts_and_lists_of_the_caller_are_changed_alike(change):
    def given():
        return {"x": X.clone(), "parts": [X + 1, X + 2], "options": {"deep": False}}

    def forward(self, d):
        x = d["x"]
        change(d)
        return self.lin(x)

    model, example = _model(forward), given()
    rebuilt = lg.to_torch(lg.to_ir(model, (example,)), model.state_dict())
    assert repr(example) == repr(given())
    ours, theirs = given(), given()
    assert bitwise_equal(rebuilt(ours), model(theirs))
    assert repr(ours) == repr(theirs)
    assert list(ours) == list(theirs)


@pytest.mark.parametrize(
    "use",
    [
        lambda n: torch.ones(2) * n,
        lambda n: n + torch.ones(2),
        lambda n: torch.ones(2).fill_(n),
        lambda n: torch.full((2,), n),
        lambda n: torch.ones(4).reshape([n, -1]),
        torch.arange,
        lambda n: torch.tensor([n]),
        lambda n: [*range(n)],
        lambda n: {2: "two"}[n],
        lambda n: n == 2 and type(n * 3) is int,
    ],
)
def test_a_size_whose_capture_is_over_is_a_number(use):
    # The queue is a C object, and the capture cannot search it.
    kept = queue.SimpleQueue()
    lg.to_ir(_model(lambda self, x: (kept.put(x.shape[0]), x * 2)[1]), (X[:2],))
    assert str(use(kept.get())) == str(use(2))
