"""The numbers of the turns of loops: ``range`` and ``enumerate`` give symbolic ones.

Code may do something else from some turn on. A comparison of a symbolic number is seen, so that a
loop of the graph has a guard for it in each turn.
"""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from layergraph.torch2ir.tracing.patches import Patch
from layergraph_capture.symbolic_int import SizeListener, SymbolicNumber, lost, symbolic

TURN = "layergraph.turn"
"""The function, in the record of a run, that gives the number of a turn. No graph has it."""


class TurnPatches:
    """Replaces ``range`` and ``enumerate`` in the globals of code that runs.

    Args:
        listener: gets to know what becomes of the numbers.
    """

    def __init__(self, listener: SizeListener) -> None:
        self._listener = listener
        self._loops = itertools.count()
        self._range = type("range", (_Range,), {"made_by": self._range_of})

    def of(self, scope: dict[str, Any]) -> Iterator[Patch]:
        """The patches of the globals of a module."""
        for name, original, new in (
            ("range", builtins.range, self._range),
            ("enumerate", builtins.enumerate, self._enumerate),
        ):
            if scope.get(name, original) is original:
                yield scope, name, new

    def _range_of(self, *args: Any) -> Any:
        if not self._listener.is_recording() or not _has_size(args):
            return builtins.range(*args)
        return _Turns(builtins.range(*map(lost, args)), self._numbering())

    def _enumerate(self, items: Iterable[Any], start: int = 0) -> Iterator[tuple[int, Any]]:
        if not self._listener.is_recording() or isinstance(items, torch.nn.Module | dict | str):
            return builtins.enumerate(items, start)
        number = self._numbering()
        return ((number(index), item) for index, item in builtins.enumerate(items, start))

    def _numbering(self) -> Callable[[int], int]:
        """Return what makes the numbers of a loop: no other loop has the same ones."""
        loop = next(self._loops)

        def number(value: int) -> int:
            known: int = symbolic(value, (TURN, value, loop), self._listener)
            return known

        return number


def _has_size(args: Sequence[Any]) -> bool:
    return any(isinstance(arg, SymbolicNumber) for arg in args)


class _RangeType(type):
    """The type of what stands in for ``range``, which code may ask for as a class, too."""

    made_by: Callable[..., Any]

    def __call__(cls, *args: Any) -> Any:
        return cls.made_by(*args)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, builtins.range | _Turns)


class _Range(metaclass=_RangeType):
    """The base of what stands in for ``range``."""


class _Turns(Sequence[int]):
    """A range with symbolic numbers."""

    def __init__(self, numbers: range, number: Callable[[int], int]) -> None:
        self._numbers = numbers
        self._number = number
        self.start, self.stop, self.step = numbers.start, numbers.stop, numbers.step

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        found = self._numbers[index]
        return self._number(found) if isinstance(found, int) else _Turns(found, self._number)

    def __iter__(self) -> Iterator[int]:
        return map(self._number, self._numbers)

    def __reversed__(self) -> Iterator[int]:
        return map(self._number, reversed(self._numbers))

    def __eq__(self, other: object) -> bool:
        return self._numbers == (other._numbers if isinstance(other, _Turns) else other)

    def __hash__(self) -> int:
        return hash(self._numbers)


def is_of_turn(number: SymbolicNumber) -> bool:
    """Return whether a number was computed from that of a turn."""
    pending = [number]
    while pending:
        number = pending.pop()
        if number.origin[0] == TURN:
            return True
        pending += [each for each in number.origin if isinstance(each, SymbolicNumber)]
    return False
