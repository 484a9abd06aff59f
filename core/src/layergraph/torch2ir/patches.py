"""Replacing attributes for a while."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from types import CellType
from typing import Any, Self, TypeVar

T = TypeVar("T")

Patch = tuple[Any, Any, Any]
"""A dict or another object, the name of an entry or attribute, and what it is to be for a while."""

_ABSENT = object()


class Patcher:
    """Replaces entries and attributes; on leaving, whatever happens, they are put back."""

    def __init__(self, patches: Iterable[Patch] = ()) -> None:
        self._patches = patches
        self._before: list[tuple[Any, Any, Any]] = []

    def __enter__(self) -> Self:
        try:
            # All are made before one is put: what they are made by must not see the others, and a
            # class whose attributes are replaced one after another is looked up anew only once.
            for patch in list(self._patches):
                self.put(*patch)
        except BaseException:
            self.__exit__()
            raise
        return self

    def put(self, holder: Any, name: Any, new: Any) -> None:
        """Replace something."""
        self._before.append((holder, name, _own(holder, name)))
        put(holder, name, new)

    def __exit__(self, *_: object) -> None:
        while self._before:
            put(*self._before[-1])
            self._before.pop()


def _own(holder: Any, name: Any) -> Any:
    if isinstance(holder, CellType):
        return holder.cell_contents
    members = holder if isinstance(holder, dict) else vars(holder)
    return members.get(name, _ABSENT)


def put(holder: Any, name: Any, value: Any) -> None:
    """Make an entry or attribute something else."""
    if isinstance(holder, dict):
        if value is _ABSENT:
            dict.pop(holder, name, None)
        else:
            dict.__setitem__(holder, name, value)
    elif value is _ABSENT:
        delattr(holder, name)
    else:
        setattr(holder, name, value)


ORDINARY_DEPTH = 50
"""Models nested less deeply than this run in Python's ordinary limits."""

_FRAMES_A_LEVEL = 12
_BYTES_A_LEVEL = 16 * 1024


def with_room_for(depth: int, function: Callable[[], T]) -> T:
    """Call a function that recurses once for each level of a model's nesting.

    A deep model needs more of Python's and of the machine's stack than there is. The call then
    runs in a thread that has them.

    Args:
        depth: how deeply modules are nested.
        function: what to call.
    """
    if depth <= ORDINARY_DEPTH:
        return function()
    outcome: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            outcome.append((True, function()))
        except BaseException as error:
            outcome.append((False, error))

    limit = sys.getrecursionlimit()
    size = threading.stack_size(max(8 * 2**20, depth * _BYTES_A_LEVEL))
    try:
        sys.setrecursionlimit(limit + depth * _FRAMES_A_LEVEL)
        thread = threading.Thread(target=run, name="layergraph-capture")
        thread.start()
        thread.join()
    finally:
        threading.stack_size(size)
        sys.setrecursionlimit(limit)
    succeeded, result = outcome[0]
    if not succeeded:
        raise result
    return result  # type: ignore[no-any-return]
