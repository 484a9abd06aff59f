"""A size is an int once its capture is over, wherever the model's code or a library keeps it."""

from __future__ import annotations

import contextlib
import copy
import json
import queue
import sys
import types

import pytest
import torch
from torch import nn

import layergraph as lg

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))

LIBRARY = """
import functools, queue

class Slotted:
    __slots__ = ("size",)

class Named:
    size = None

slotted, waiting, named = Slotted(), queue.SimpleQueue(), {"class": Named}

@functools.lru_cache
def halves(size, others=()):
    return size // 2, (size,)

def keep_in_slot(size): slotted.size = size
def keep_in_queue(size): waiting.put((size, [size]))
def keep_on_class(size): setattr(named["class"], "size", size)
def keep_in_cache(size): halves(size)
def keep_in_text(size): slotted.size = str(size)
def keep_in_slice(size): slotted.size = slice(size)
def keep_in_partial(size): slotted.size = functools.partial(max, size)
"""


@pytest.fixture
def library(monkeypatch):
    module = types.ModuleType("a_library_that_keeps_sizes")
    exec(LIBRARY, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


KEPT = {
    "keep_in_slot": lambda library: library.slotted.size,
    "keep_in_queue": lambda library: library.waiting.get_nowait()[1][0],
    "keep_on_class": lambda library: library.Named.size,
    "keep_in_cache": lambda library: library.halves(3)[1][0],
    "keep_in_text": lambda library: int(library.slotted.size),
    "keep_in_slice": lambda library: library.slotted.size.stop,
    "keep_in_partial": lambda library: library.slotted.size.args[0],
}

PUT_BACK = (AttributeError, queue.Empty)


@pytest.mark.parametrize("name", KEPT)
def test_what_takes_the_place_of_a_size(library, name):
    class Model(nn.Module):
        def forward(self, x):
            getattr(library, name)(x.shape[0])
            return x * 2

    # Capture may see that it is kept, and then refuse that and put it back.
    with contextlib.suppress(lg.errors.CaptureError, *PUT_BACK):
        lg.to_ir(Model(), (X,))
        _check(KEPT[name](library))


def _check(size):
    assert type(size) is int
    assert size == 3
    assert torch.zeros(size, 4).shape == X.shape
    assert torch.zeros(1, 4).expand(size, 4).shape == X.shape
    assert json.loads(json.dumps([size])) == [3]
    assert type(copy.deepcopy(size)) is int


@pytest.mark.needs("sizes_by_index")
def test_a_size_that_cannot_be_replaced_gives_an_int():
    def keeps():
        size = yield
        while True:
            yield size

    keeper = keeps()
    next(keeper)

    class Model(nn.Module):
        def forward(self, x):
            keeper.send(x.shape[0])
            return x * 2

    lg.to_ir(Model(), (X,))
    size = next(keeper)
    assert size == 3
    assert range(size) == range(3)
    assert torch.zeros((size, 4)).shape == X.shape
    assert type(copy.deepcopy(size)) is int


def test_no_search_runs_where_no_size_is_kept(monkeypatch):
    from layergraph_capture.symbolic import kept_sizes

    asked = []
    monkeypatch.setattr(kept_sizes.gc, "get_referrers", lambda *given: asked.append(given) or [])

    class Model(nn.Module):
        def forward(self, x):
            return x.reshape(x.shape[0] * 2, -1)

    lg.to_ir(Model(), (X,))
    assert not asked
