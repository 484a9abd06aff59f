"""Temporary replacement of attributes and dict entries."""

from __future__ import annotations

import functools
import operator
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from types import CellType, FunctionType, ModuleType
from typing import Any, Self, TypeVar

import torch

from layergraph.torch2ir.state.global_state import put_back as put_back_settings
from layergraph.torch2ir.state.global_state import snapshot
from layergraph.torch2ir.tracing.interruptible import in_thread
from layergraph.undo import Modes, undoing

T = TypeVar("T")

Patch = tuple[Any, Any, Any]
"""The holder (a dict or another object), the name of an entry or attribute, and the new value."""

ENTRIES = object()
"""A marker in place of a name: the new value is a dict of several entries or attributes."""

_ABSENT = object()


class Patcher:
    """Context manager that replaces entries and attributes, and always restores the old ones."""

    def __init__(self, patches: Iterable[Patch] = ()) -> None:
        self._patches = patches
        self._before: list[tuple[Any, Any, Any]] = []
        self._undoing = undoing(self._put_back)

    def __enter__(self) -> Self:
        # Make all patches before applying any: code that makes a patch must see the originals.
        # Applying those of one class in a row invalidates the caches of the class only once.
        made = list(self._patches)
        self._undoing.__enter__()
        try:
            for patch in made:
                self.put(*patch)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def put(self, holder: Any, name: Any, new: Any) -> None:
        """Replace an entry or attribute until the block ends."""
        if name is ENTRIES:
            members = _members(holder)
            was: Any = {each: members.get(each, _ABSENT) for each in new}
        else:
            was = _own(holder, name)
        self._before.append((holder, name, was))
        put(holder, name, new)

    def _put_back(self) -> None:
        while self._before:
            put(*self._before[-1])
            self._before.pop()

    def __exit__(self, *_: object) -> None:
        self._undoing.__exit__(None, None, None)


def _members(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else vars(holder)


def _own(holder: Any, name: Any) -> Any:
    kind = type(holder)
    if kind is CellType:
        return holder.cell_contents
    if kind is FunctionType:
        return getattr(holder, name)
    if issubclass(kind, list):
        return holder[name]
    return _members(holder).get(name, _ABSENT)


def put(holder: Any, name: Any, value: Any) -> None:
    """Set an entry or attribute."""
    if type(holder) is ModuleType:
        holder = vars(holder)
    is_dict = isinstance(holder, dict)
    if name is not ENTRIES:
        _put(holder, name, value, is_dict)
    elif is_dict and not any(map(_is_absent, value.values())):
        dict.update(holder, value)
    else:
        for each, new in value.items():
            _put(holder, each, new, is_dict)


def _put(holder: Any, name: Any, value: Any, is_dict: bool) -> None:
    if is_dict:
        if value is _ABSENT:
            dict.pop(holder, name, None)
        else:
            dict.__setitem__(holder, name, value)
    elif isinstance(holder, list):
        list.__setitem__(holder, name, value)
    elif value is not _ABSENT:
        setattr(holder, name, value)
    elif name in vars(holder):
        delattr(holder, name)


_is_absent = functools.partial(operator.is_, _ABSENT)


ORDINARY_DEPTH = 50
"""Models nested less deeply than this fit Python's default recursion limit."""

_FRAMES_A_LEVEL = 12
_BYTES_A_LEVEL = 16 * 1024


def with_room_for(depth: int, function: Callable[[], T]) -> T:
    """Call a function that recurses once per nesting level of a model, with enough stack.

    A deep model exceeds Python's recursion limit and the stack of the main thread. For such a
    model, the call runs in a thread with a larger stack.
    """
    if depth <= ORDINARY_DEPTH:
        return function()
    limit, size = sys.getrecursionlimit(), threading.stack_size()
    modes, settings = Modes(), snapshot()
    infers = torch.inference_mode if torch.is_inference_mode_enabled() else nullcontext

    def run() -> T:
        # Torch keeps inference mode per thread.
        with infers():
            put_back_settings(settings)
            modes.put_back()
            return function()

    def put_back() -> None:
        threading.stack_size(size)
        sys.setrecursionlimit(limit)

    with undoing(put_back):
        threading.stack_size(max(8 * 2**20, depth * _BYTES_A_LEVEL))
        sys.setrecursionlimit(limit + depth * _FRAMES_A_LEVEL)
        return in_thread(run)
