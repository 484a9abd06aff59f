"""Symbolic numbers after their capture: they behave as plain numbers."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Sequence
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
    """The listener of ended numbers, so that kept sizes do not keep their capture alive."""

    is_over = True

    def __init__(self) -> None:
        self.born: list[weakref.ref[SymbolicNumber]] = []

    def is_recording(self) -> bool:
        """Return False."""
        return False

    def assume(self, origin: Origin, result: object) -> None:
        """Do nothing."""

    def decide(self, origin: Origin, result: bool) -> bool:  # noqa: ARG002
        """Return the result of the comparison."""
        return result

    def of_numbers(self, name: str, numbers: Sequence[Any], result: Any) -> Any:  # noqa: ARG002
        """Return the plain result."""
        return result


_NO_LISTENER = _NoListener()


def end(born: Iterable[weakref.ref[SymbolicNumber]]) -> None:
    """Turn the numbers of a capture into ended ones, with which code can compute on tensors.

    Torch would treat a symbolic number as one of its own, but nothing records its use any more.
    """
    for each in born:
        number = each()
        if number is not None:
            number.origin, number.listener = (), _NO_LISTENER
            _become.__set__(number, OverInt if type(number) is SymbolicInt else OverFloat)
            _NO_LISTENER.born.append(each)


def take_ended() -> list[SymbolicNumber]:
    """Return the numbers of recently ended captures that some object still holds."""
    born, _NO_LISTENER.born = _NO_LISTENER.born, []
    if any(each() is not None for each in born):
        # Objects of the captures themselves are young garbage; collect them first.
        gc.collect(0)
    return [number for each in born if (number := each()) is not None]
