"""A cache for what code says, by the identity of the code."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import TypeVar

T = TypeVar("T")

_MANY = 65_536


def by_identity(read: Callable[[CodeType], T]) -> Callable[[CodeType], T]:
    """Wrap a function of code so that it reads each code once, because code never changes.

    ``functools.cache`` would compute the hash of the code, and compare its instructions.
    """
    # Each entry keeps its code alive, so ids stay unique.
    known: dict[int, tuple[CodeType, T]] = {}

    def call(code: CodeType) -> T:
        if id(code) not in known:
            if len(known) >= _MANY:
                known.clear()
            known[id(code)] = code, read(code)
        return known[id(code)][1]

    return call
