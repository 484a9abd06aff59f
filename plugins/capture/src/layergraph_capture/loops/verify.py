"""Verification of a record with loops against the record of a run, call by call.

The verification unrolls the loops for the sizes of the run, and requires the same calls with the
same arguments. A loop is accepted only after this check.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from layergraph.ir import Value
from layergraph.ir.values import parts, rebuilt
from layergraph.torch2ir.tracing.module_call import (
    Call,
    ModuleCall,
    Trace,
    TracedBody,
    TracedValue,
    calls_in,
)
from layergraph_capture.loops.numbers import COMPUTED, is_of_turns, is_trivial, number_of_turn
from layergraph_capture.loops.repeats import Item
from layergraph_capture.loops.turns import COUNT
from layergraph_capture.loops.written import ASSUME, CONTAINER, LEN, LENGTH, LOOP, Rolled

_GLUE: dict[str, Callable[..., Any]] = {
    "operator.getitem": operator.getitem,
    "builtins.tuple": tuple,
    **COMPUTED,
}


class OtherRunError(Exception):
    """The record with loops makes other calls than the run."""


def check_run(rolled: Rolled, trace: Trace, sizes: Collection[TracedValue]) -> None:
    """Raise unless a record with loops makes the calls of a run for its sizes.

    Args:
        rolled: the record with loops.
        trace: the record of the run.
        sizes: the values of the sizes on which loops depend.

    Raises:
        OtherRunError: they differ.
    """
    _Comparison(rolled, sizes).compare(trace)


class _Calls:
    """An iterator over the calls of a run in one module call."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = iter(items)
        self._next: Item | None = next(self._items, None)

    @property
    def next(self) -> Item | None:
        """Return the next call without consuming it."""
        return self._next

    def take(self) -> Item | None:
        """Return and consume the next call."""
        taken, self._next = self._next, next(self._items, None)
        return taken


@dataclass(frozen=True, slots=True)
class _Size:
    """A size on which loops depend: its value in the run, if it has one there, and its number."""

    value: TracedValue | None
    number: int


class _Comparison:
    def __init__(self, rolled: Rolled, sizes: Collection[TracedValue]) -> None:
        self._rolled = rolled
        self._sizes = sizes
        # The nesting depth of loops, and whether the comparison is at the end of a last turn.
        self._depth = 0
        self._is_behind_loop = False
        # The integer results of calls of the run, by function and arguments.
        self._numbers: dict[tuple[object, ...], int] = {}
        # For each value of the record with loops, its counterpart in the run: a value, a number,
        # or, for a collected list, a list of these.
        self._values: dict[TracedValue, Any] = {}

    def compare(self, trace: Trace) -> None:
        for call in calls_in(trace.root):
            self._note_numbers(call)
        own = self._rolled.trace
        if [each.name for each in own.parameters] != [each.name for each in trace.parameters]:
            raise OtherRunError("other parameters")
        for mine, theirs in zip(own.parameters, trace.parameters, strict=True):
            if (mine.default, mine.fixed) != (theirs.default, theirs.fixed):
                raise OtherRunError(f"other values of {mine.name}")
            self._values[mine.value] = theirs.value
        self._same_scope(own.root, trace.root)
        if own.constants.keys() != trace.constants.keys():
            raise OtherRunError("other constants")

    def _same_scope(self, own: ModuleCall, other: ModuleCall) -> None:
        if own.known != other.known:
            raise OtherRunError("code asks for other facts")
        calls = _Calls(other.items)
        self._items(own.items, calls)
        self._skip(calls)
        if calls.next is not None:
            raise OtherRunError(f"one more call of {_called(calls.next)}")
        self._same(own.result, other.result)

    def _items(self, items: Sequence[Item], calls: _Calls) -> None:
        for item in items:
            if isinstance(item, ModuleCall):
                other = self._take(calls, item)
                self._same_given(item, other)
                if isinstance(other, ModuleCall):
                    self._same_scope(item, other)
            elif item.target == LOOP:
                self._loop(item, calls)
            elif item in self._rolled.glue:
                self._values[item.value] = self._glue(item)
                self._note_size(item.value, None)
            else:
                other = self._take(calls, item)
                self._same_given(item, other)
                if isinstance(other, Call):
                    self._values[item.value] = other.value
                    self._note_size(item.value, other.value)

    def _note_numbers(self, call: Call) -> None:
        """Record the integer results of calls of the run."""
        if call.value.number is not None:
            self._numbers[call.target, *map(_identity, call.args)] = call.value.number
        elif call.target in (LENGTH, CONTAINER):
            number = call.args[1 if call.target == LENGTH else 2]
            if type(number) is int:
                self._numbers[LEN, _identity(call.args[0])] = number

    def _note_size(self, own: TracedValue, other: TracedValue | None) -> None:
        if own not in self._sizes:
            return
        call = own.call
        number = None if other is None else other.number
        if other is None and call is not None:
            args = [_identity(self._of(each)) for each in call.args]
            number = self._numbers.get((call.target, *args))
        if number is None:
            raise OtherRunError(f"the size {own.wish} is not known")
        self._values[own] = _Size(other, number)

    def _take(self, calls: _Calls, item: Item) -> Item:
        while calls.next is not None and not self._is_alike(item, calls.next):
            if not self._is_left_out(calls.next):
                break
            calls.take()
        other = calls.take()
        self._is_behind_loop = False
        if other is None or not _calls_the_same(item, other):
            raise OtherRunError(f"{_called(other)} instead of {_called(item)}")
        return other

    def _is_alike(self, item: Item, other: Item) -> bool:
        """Return whether a call has the form of the record's next call."""
        if not _calls_the_same(item, other) or self._is_dropped(other):
            return False
        if not is_of_turns(other):
            return True
        try:
            self._same(item.args, other.args)
        except OtherRunError:
            return False
        return True

    def _skip(self, calls: _Calls) -> None:
        """Skip calls of the run that the record leaves out."""
        while self._is_left_out(calls.next):
            calls.take()

    def _is_left_out(self, item: Item | None) -> bool:
        """Return whether the record leaves out a call.

        It leaves out the guards of the sizes on which loops depend, and computations with turn
        numbers. Of the guards of turn numbers, a loop leaves out only trivial ones.
        """
        if isinstance(item, Call) and item.target == ASSUME and is_of_turns(item):
            return (self._depth > 0 or self._is_behind_loop) and is_trivial(item)
        return self._is_dropped(item) or is_of_turns(item)

    def _is_dropped(self, item: Item | None) -> bool:
        if not isinstance(item, Call) or item.target not in (COUNT, ASSUME, LENGTH):
            return False
        value, expected, *_ = item.args
        if item.target == LENGTH:
            measured = [each.call for each in self._sizes if each.call is not None]
            return any(
                call.target == LEN and self._values.get(call.args[0]) is value for call in measured
            )
        sizes = [self._values.get(each) for each in self._sizes]
        return any(
            isinstance(each, _Size) and each.value is value and each.number == expected
            for each in sizes
        )

    def _loop(self, call: Call, calls: _Calls) -> None:
        body, turns, carried, given, _ = call.args
        count = self._number(turns)
        if count < 0:
            raise OtherRunError("the loop has fewer than no turns")
        values = [self._of(value) for value in carried]
        given = [self._of(value) for value in given]
        lists: list[list[Any]] = [[] for _ in body.result[len(values) :]]
        self._depth += 1
        for turn in range(count):
            self._values |= dict(zip(body.inputs, [turn, *values, *given], strict=True))
            self._items(body.items, calls)
            gives = [self._of(value) for value in body.result]
            values = gives[: len(values)]
            for each, value in zip(lists, gives[len(values) :], strict=True):
                each.append(value)
        self._depth -= 1
        self._is_behind_loop = True
        self._values[call.value] = (*values, *lists)

    def _glue(self, call: Call) -> Any:
        target = _GLUE.get(call.target)
        args = [self._of(value, to_compute=True) for value in call.args]
        try:
            return None if target is None else target(*args)
        except (ArithmeticError, IndexError, TypeError) as error:
            raise OtherRunError(f"{call.target} of a loop: {error}") from None

    def _number(self, value: Value) -> int:
        found = self._of(value, to_compute=True)
        if type(found) is not int:
            raise OtherRunError("the number of turns is none")
        return found

    def _of(self, value: Value, *, to_compute: bool = False) -> Any:
        """Return the counterpart of a value, or of a list of values, in the run."""
        if isinstance(value, TracedValue):
            found = self._values.get(value, _MISSING)
            return found.number if to_compute and isinstance(found, _Size) else found
        if type(value) is slice:
            of = [self._of(each, to_compute=True) for each in (value.start, value.stop, value.step)]
            return slice(*of)
        inside = parts(value)
        return value if inside is None else rebuilt(value, [self._of(each) for each in inside])

    # --- arguments ---

    def _same_given(self, item: Item, other: Item) -> None:
        args = other.args
        if isinstance(item, Call) and item.target == CONTAINER and self._is_counted(item.args[0]):
            args = (*args[:2], None, *args[3:])
        self._same(item.args, args)
        self._same(item.kwargs, other.kwargs)
        if other.when is not None:
            raise OtherRunError("a call has a condition")

    def _is_counted(self, container: Value) -> bool:
        """Return whether loops depend on the number of items of an argument."""
        counts = [each.call for each in self._sizes if each.call is not None]
        return any(each.target == LEN and each.args[0] is container for each in counts)

    def _same(self, own: Value, other: Value) -> None:
        if isinstance(own, TracedValue):
            self._same_value(own, other)
            return
        if isinstance(other, TracedValue) and number_of_turn(other) is not None:
            other = number_of_turn(other)
        inside, others = parts(own), parts(other)
        if type(own) is not type(other):
            raise OtherRunError(f"{own!r:.60} and {other!r:.60}")
        if isinstance(own, TracedBody):
            raise OtherRunError("a body is an argument")
        if inside is None or others is None:
            if repr(own) != repr(other):
                raise OtherRunError(f"{own!r:.60} and {other!r:.60}")
            return
        if len(inside) != len(others) or (type(own) is dict and list(own) != list(other)):
            raise OtherRunError("other numbers of arguments")
        for mine, theirs in zip(inside, others, strict=True):
            self._same(mine, theirs)

    def _same_value(self, own: TracedValue, other: Value) -> None:
        found = self._values.get(own, _MISSING)
        number = number_of_turn(other)
        if number is not None:
            own_number = self._of(own, to_compute=True)
            if isinstance(own_number, TracedValue):
                own_number = number_of_turn(own_number)
            is_same = type(own_number) is type(number) and own_number == number
        elif isinstance(other, TracedValue):
            is_same = (found.value if isinstance(found, _Size) else found) is other
        else:
            is_same = type(found) in (list, tuple) and _are_same(found, other)
        if not is_same:
            raise OtherRunError(f"{own.wish} is another value")


_MISSING = object()


def _are_same(one: Any, other: Value) -> bool:
    """Return whether the counterpart of a list has the values of a list of the run."""
    if isinstance(one, _Size):
        one = one.number if one.value is None else one.value
    inside, others = parts(one), parts(other)
    if inside is None or others is None:
        if isinstance(one, TracedValue) or isinstance(other, TracedValue):
            return one is other
        return type(one) is type(other) and repr(one) == repr(other)
    return (
        type(one) is type(other)
        and len(inside) == len(others)
        and (type(one) is not dict or list(one) == list(other))
        and all(map(_are_same, inside, others))
    )


def _identity(value: Value) -> object:
    return id(value) if isinstance(value, TracedValue) else repr(value)


def _calls_the_same(item: Item, other: Item | None) -> bool:
    if isinstance(item, ModuleCall):
        return isinstance(other, ModuleCall) and item.path == other.path
    return isinstance(other, Call) and (item.kind, item.target) == (other.kind, other.target)


def _called(item: Item | None) -> str:
    if item is None:
        return "nothing"
    return item.path if isinstance(item, ModuleCall) else item.target
