"""Symbolic turn numbers and marks at the starts of turns, for the search of loops.

Code may make other calls from some turn on. So ``range`` and ``enumerate`` return symbolic numbers:
the tracer sees a comparison of such a number, and the loop of the graph guards it in each turn. If
a ``for`` statement iterates over a whole range or a whole tensor, we mark each turn with the plain
state of the code. If this state stays the same, all turns make the same calls.
"""

from __future__ import annotations

import builtins
import dis
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any, Protocol, Self, SupportsIndex

import torch

from layergraph.torch2ir.tracing.lines import user_frame
from layergraph.torch2ir.tracing.patches import Patch
from layergraph.torch2ir.tracing.stand_ins import StandIn
from layergraph_capture.loops.frame_state import holds_tensors
from layergraph_capture.loops.list_slices import ListSlices
from layergraph_capture.symbolic.symbolic_int import SizeListener, SymbolicNumber, plain, symbolic

TURN = "layergraph.turn"
"""A function in records of runs that returns the number of a turn. No graph has it."""

BEGIN = "layergraph.begin_turn"
"""A function in records of runs that marks the start of a turn. No graph has it.

It takes the number of the turn, the number of the loop, and the line of the loop.
"""

COUNT = "layergraph.count"
"""A function in records of runs that takes a number of turns. No graph has it."""

_GET_ITER = dis.opmap["GET_ITER"]


class TurnListener(SizeListener, Protocol):
    """The listener for turns."""

    def next_loop(self) -> int:
        """Return the number of a new loop."""

    def count(self, number: Any) -> Any:
        """Return the plain number, and record that it is a number of turns."""

    def begin_turn(self, turn: int, loop: int, frame: FrameType, left: int) -> None:
        """Record the start of a turn, with the plain state of the code.

        Args:
            turn: the number of the turn.
            loop: the number of the loop.
            frame: the frame of the code.
            left: the number of turns after it; 0 if it is not known.
        """

    def begin_item(self, index: int) -> None:
        """Record the start of a turn that reads an item of an argument, before the model runs."""


class TurnPatches:
    """Makes the patches of ``range``, ``enumerate``, ``zip`` and ``len`` in globals of code.

    Args:
        listener: records turns and the uses of turn numbers.
        slices: records calls of ``zip``.
    """

    def __init__(self, listener: TurnListener, slices: ListSlices) -> None:
        self._listener = listener
        self._slices = slices
        self._range = type("range", (_Range,), {"made_by": self._range_of})

    def of(self, scope: dict[str, Any]) -> Iterator[Patch]:
        """Yield the patches of the globals of a module."""
        for name, original, new in (
            ("range", builtins.range, self._range),
            ("enumerate", builtins.enumerate, self._enumerate),
            ("zip", builtins.zip, self._zip),
        ):
            if scope.get(name, original) is original:
                yield scope, name, new

    def length(self, value: object) -> Any:
        """Return the length of an object that loops iterate over; None for any other object."""
        if not isinstance(value, list | _Parts | _Turns) or not self._listener.is_recording():
            return None
        if type(value) is list and value and not holds_tensors(value):
            return None
        return symbolic(len(value), (TURN, len(value), -1), self._listener)

    def argument(self, given: Any) -> Any:
        """Return a list or tuple among the arguments as one that detects iteration."""
        if type(given) is list:
            return _Items(given, self._listener)
        return _Parts(given, self._listener) if type(given) is tuple else given

    def begin_item(self, index: int) -> None:
        """Record that what follows reads an item of an argument."""
        self._listener.begin_item(index)

    def parts(self, result: Any) -> Any:
        """Return the slices of a tensor as a tuple that detects iteration."""
        if type(result) is not tuple or not all(isinstance(each, torch.Tensor) for each in result):
            return result
        return _Parts(result, self._listener)

    def _range_of(self, *args: Any) -> Any:
        if not self._listener.is_recording():
            return builtins.range(*args)
        args = tuple([arg.item() if isinstance(arg, torch.Tensor) else arg for arg in args])
        if not any(isinstance(arg, SymbolicNumber) for arg in args):
            return builtins.range(*args)
        numbers = builtins.range(*map(self._listener.count, args))
        start, stop, step = (0, *args, 1) if len(args) == 1 else (*args, 1)[:3]
        whole = slice(start, stop, step)
        return _Turns(numbers, self._listener, self._listener.next_loop(), whole)

    def _enumerate(self, items: Iterable[Any], start: int = 0) -> Any:
        if not self._listener.is_recording() or isinstance(items, torch.nn.Module | dict | str):
            return builtins.enumerate(items, start)
        loop = self._listener.next_loop()
        pairs = (
            (symbolic(index, (TURN, index, loop), self._listener), item)
            for index, item in builtins.enumerate(_plainly(items), start)
        )
        return _Iteration(pairs, self._listener, loop, is_whole=_is_whole(items))

    def _zip(self, *items: Iterable[Any], **options: Any) -> Any:
        if not self._listener.is_recording() or not all(map(_is_whole, items)) or not items:
            if any(map(holds_tensors, items)):
                self._slices.note_zip(items)
            return builtins.zip(*items, **options)  # noqa: B905 as the caller says
        rows = builtins.zip(*map(_plainly, items), **options)  # noqa: B905 as the caller says
        is_whole = len({self._count(each) for each in items}) == 1
        return _Iteration(rows, self._listener, self._listener.next_loop(), is_whole=is_whole)

    def _count(self, items: Any) -> object:
        if isinstance(items, _Iteration):
            return items
        if isinstance(items, torch.Tensor):
            return self._listener.count(items.shape[0])
        return len(items)


class _Iteration:
    """An iterator that marks each turn if a ``for`` statement iterates over it directly.

    Args:
        items: the items.
        listener: records the turns.
        loop: the number of the loop.
        is_whole: whether its length depends only on a size.
        source: the iterator that ``items`` read, if it knows how many are left.

    Attributes:
        is_direct: whether a ``for`` statement iterates over it directly.
    """

    def __init__(
        self,
        items: Iterator[Any],
        listener: TurnListener,
        loop: int,
        *,
        is_whole: bool,
        source: Iterator[Any] | None = None,
    ) -> None:
        self._items = items
        self._source = items if source is None else source
        self._listener = listener
        self._loop = loop
        self._turn = -1
        self.is_whole = is_whole
        self.is_direct = False

    def __iter__(self) -> _Iteration:
        self.is_direct = self.is_whole and _is_for_statement()
        return self

    def __next__(self) -> Any:
        item = next(self._items)
        self._turn += 1
        if self.is_direct and self._listener.is_recording():
            frame = user_frame()
            if frame is not None:
                left = operator.length_hint(self._source)
                self._listener.begin_turn(self._turn, self._loop, frame, left)
        return item

    def __length_hint__(self) -> int:
        return 0


class _Watched(StandIn):
    """A tuple or a list that marks the turns of a ``for`` statement over it."""

    _base: Any
    _listener: TurnListener

    def plain(self) -> Any:
        """Return a plain tuple or list."""
        return self._base(self.items())

    def items(self) -> Iterator[Any]:
        """Return an iterator over the items that marks no turns."""
        return iter(self._base.__iter__(self))

    def __iter__(self) -> Iterator[Any]:
        if not self._listener.is_recording() or not _is_for_statement():
            return self.items()
        loop = self._listener.next_loop()
        iteration = _Iteration(self.items(), self._listener, loop, is_whole=True)
        iteration.is_direct = True
        return iteration

    def __getitem__(self, index: Any) -> Any:
        return self._base.__getitem__(self, plain(index))

    def __reduce_ex__(self, _protocol: SupportsIndex) -> tuple[Any, ...]:
        return self._base, (list(self.items()),)


class _Parts(_Watched, tuple[Any, ...]):
    """The slices of a tensor along its first dimension, or a tuple among the arguments."""

    _base = tuple

    def __new__(cls, parts: Iterable[Any], listener: TurnListener) -> Self:
        made = tuple.__new__(cls, parts)
        made._listener = listener
        return made


class _Items(_Watched, list[Any]):
    """A list among the arguments."""

    _base = list

    def __init__(self, items: Iterable[Any], listener: TurnListener) -> None:
        list.__init__(self, items)
        self._listener = listener

    def __setitem__(self, index: Any, value: Any) -> None:
        list.__setitem__(self, plain(index), value)


class _RangeType(type):
    """The metaclass of the stand-in for ``range``, which code may also use as a class."""

    made_by: Callable[..., Any]

    def __call__(cls, *args: Any) -> Any:
        return cls.made_by(*args)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, builtins.range | _Turns)


class _Range(metaclass=_RangeType):
    """The base of the stand-in for ``range``."""


class _Turns(Sequence[int]):
    """A range with symbolic numbers.

    Args:
        numbers: the plain range.
        listener: records the turns.
        loop: the number of the loop.
        whole: its start, stop and step as passed; None for a part of another range.
    """

    def __init__(
        self, numbers: range, listener: TurnListener, loop: int, whole: slice | None = None
    ) -> None:
        self.numbers = numbers
        self._listener = listener
        self._loop = loop
        self.is_whole = whole is not None
        given = [self._number(each) for each in (numbers.start, numbers.stop, numbers.step)]
        if whole is not None:
            given = [whole.start, whole.stop, whole.step]
        self.start, self.stop, self.step = given

    def _number(self, value: int) -> int:
        known: int = symbolic(value, (TURN, value, self._loop), self._listener)
        return known

    def _iteration(self, numbers: Iterator[int]) -> _Iteration:
        turns = map(self._number, numbers)
        return _Iteration(turns, self._listener, self._loop, is_whole=self.is_whole, source=numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        found = self.numbers[index]
        if isinstance(found, int):
            return self._number(found)
        return _Turns(found, self._listener, self._loop)

    def __iter__(self) -> Iterator[int]:
        return iter(self._iteration(iter(self.numbers)))

    def __reversed__(self) -> Iterator[int]:
        return self._iteration(reversed(self.numbers))

    def __eq__(self, other: object) -> bool:
        return self.numbers == (other.numbers if isinstance(other, _Turns) else other)

    def __hash__(self) -> int:
        return hash(self.numbers)


def _is_for_statement() -> bool:
    """Return whether the running instruction of the caller is a ``for`` statement."""
    frame = user_frame()
    if frame is None or frame.f_lasti < 0:
        return False
    return frame.f_code.co_code[frame.f_lasti] == _GET_ITER


def _is_whole(items: object) -> bool:
    """Return whether the number of items depends only on a size."""
    if isinstance(items, _Iteration | _Turns):
        return items.is_whole
    return isinstance(items, _Watched | torch.Tensor)


def _plainly(items: Iterable[Any]) -> Iterable[Any]:
    """Return the items without marks, for a loop that marks its turns itself."""
    if isinstance(items, _Watched):
        return items.items()
    return map(items._number, items.numbers) if isinstance(items, _Turns) else items


def is_of_turn(number: SymbolicNumber) -> bool:
    """Return whether a number was computed from a turn number."""
    pending = [number]
    while pending:
        number = pending.pop()
        if number.origin[0] == TURN:
            return True
        pending += [each for each in number.origin if isinstance(each, SymbolicNumber)]
    return False
