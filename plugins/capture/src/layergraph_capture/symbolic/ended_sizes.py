"""Symbolic numbers whose capture is over: they compute as plain numbers, wherever they are kept."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from typing import Any

from layergraph_capture.symbolic.symbolic_int import (
    Origin,
    OverFloat,
    OverInt,
    SymbolicInt,
    SymbolicNumber,
)

_become: Any = object.__dict__["__class__"]


class _NoListener:
    """Takes the place of a capture that is over: a size that code keeps does not keep that."""

    is_over = True

    def __init__(self) -> None:
        self.born: list[weakref.ref[SymbolicNumber]] = []

    def is_recording(self) -> bool:
        """No."""
        return False

    def assume(self, origin: Origin, result: object) -> None:
        """Take no note."""

    def decide(self, origin: Origin, result: bool) -> bool:  # noqa: ARG002
        """Return the result of the comparison."""
        return result


_NO_LISTENER = _NoListener()


def end(born: Iterable[weakref.ref[SymbolicNumber]]) -> None:
    """End a capture for its numbers: who still has them may compute with tensors.

    Torch would take a symbolic number, whose use is not recorded any more, for another one.
    """
    for each in born:
        number = each()
        if number is not None:
            number.origin, number.listener = (), _NO_LISTENER
            _become.__set__(number, OverInt if type(number) is SymbolicInt else OverFloat)
            _NO_LISTENER.born.append(each)


def take_ended() -> list[SymbolicNumber]:
    """The numbers that are still kept somewhere, of the captures that ended since the last call."""
    born, _NO_LISTENER.born = _NO_LISTENER.born, []
    if any(each() is not None for each in born):
        # What the captures made themselves is garbage, and young.
        gc.collect(0)
    return [number for each in born if (number := each()) is not None]
