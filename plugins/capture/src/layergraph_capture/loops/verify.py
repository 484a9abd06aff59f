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
from layergraph.torch2ir.folding.conditions import CHOOSE
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


MISSING = object()
"""The counterpart of a value that a run does not compute."""


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
    Comparison(rolled, sizes).compare(trace)


class RunCalls:
    """An iterator over the calls of a run in one module call.

    Attributes:
        items: the calls.
        at: the number of consumed ones.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.at = 0

    @property
    def next(self) -> Item | None:
        """Return the next call without consuming it."""
        return self.items[self.at] if self.at < len(self.items) else None

    def take(self) -> Item | None:
        """Return and consume the next call."""
        taken = self.next
        self.at += 1
        return taken


@dataclass(frozen=True, slots=True)
class _Size:
    """A size on which loops depend: its value in the run, if it has one there, and its number."""

    value: TracedValue | None
    number: int


class Counterparts:
    """The counterparts of the values of a record with loops in the record of a run.

    Args:
        sizes: the values of the sizes on which loops depend.
    """

    def __init__(self, sizes: Collection[TracedValue]) -> None:
        self._sizes = sizes
        # For each value of the record with loops, its counterpart in the run: a value, a number,
        # or, for a collected list, a list of these.
        self._values: dict[TracedValue, Any] = {}
        # The answers to the decisions of the run.
        self._answers: dict[TracedValue, bool] = {}

    def _answer(self, condition: Value) -> object:
        """Return the answer to a decision in the run; None if the run does not come to it."""
        found = self._of(condition)
        if isinstance(found, TracedValue):
            return self._answers.get(found)
        return None if found is MISSING else found

    def _number(self, value: Value) -> int:
        found = self._of(value, to_compute=True)
        if type(found) is not int:
            raise OtherRunError("the number of turns is none")
        return found

    def _of(self, value: Value, *, to_compute: bool = False) -> Any:
        """Return the counterpart of a value, or of a list of values, in the run."""
        if isinstance(value, TracedValue):
            found = self._values.get(value, MISSING)
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
        found = self._values.get(own, MISSING)
        number = number_of_turn(other)
        if number is not None:
            own_number = self._of(own, to_compute=True)
            if isinstance(own_number, TracedValue):
                own_number = number_of_turn(own_number)
            is_same = type(own_number) is type(number) and own_number == number
        elif isinstance(other, TracedValue):
            is_same = (found.value if isinstance(found, _Size) else found) is other
        else:
            is_same = type(found) in (list, tuple) and self._are_same(found, other)
        if not is_same:
            raise OtherRunError(f"{own.wish} is another value")

    def _are_same(self, one: Any, other: Value) -> bool:
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
            and all(map(self._are_same, inside, others))
        )


class Comparison(Counterparts):
    """The comparison of a record with loops with the record of a run.

    Args:
        rolled: the record with loops.
        sizes: the values of the sizes on which loops depend.
    """

    def __init__(self, rolled: Rolled, sizes: Collection[TracedValue]) -> None:
        super().__init__(sizes)
        self._rolled = rolled
        # The loops around, each with the number of its turn, and of its turns.
        self._loops: list[tuple[Call, int, int]] = []
        # Whether the comparison is at the end of a last turn.
        self._is_behind_loop = False
        # The integer results of calls of the run, by function and arguments.
        self._numbers: dict[tuple[object, ...], int] = {}

    def compare(self, trace: Trace) -> None:
        """Compare with a run.

        Raises:
            OtherRunError: the run makes other calls.
        """
        self._answers = {each.condition: each.answer for each in trace.decisions}
        for call in calls_in(trace.root):
            self._note_numbers(call)
        own = self._rolled.trace
        if [each.name for each in own.parameters] != [each.name for each in trace.parameters]:
            raise OtherRunError("other parameters")
        for mine, theirs in zip(own.parameters, trace.parameters, strict=True):
            if (mine.default, mine.fixed) != (theirs.default, theirs.fixed):
                raise OtherRunError(f"other values of {mine.name}")
            self._values[mine.value] = theirs.value
            self._note_size(mine.value, theirs.value)
        self._same_scope(own.root, trace.root)
        if not trace.constants.keys() <= own.constants.keys():
            raise OtherRunError("other constants")

    def _same_scope(self, own: ModuleCall, other: ModuleCall) -> None:
        if not other.known <= own.known:
            raise OtherRunError("code asks for other facts")
        calls = RunCalls(other.items)
        self._items(own.items, calls)
        self._skip(calls)
        if calls.next is not None:
            raise OtherRunError(f"one more call of {_called(calls.next)}")
        self._same(own.result, other.result)

    def _items(self, items: Sequence[Item], calls: RunCalls) -> None:
        for item in items:
            if self._is_made(item):
                self._item(item, calls)

    def _is_made(self, item: Item) -> bool:
        """Return whether the condition of a call holds in the run."""
        if item.when is None:
            return True
        condition, expected = item.when
        is_made = self._answer(condition) is expected
        if not is_made and isinstance(item, Call):
            self._values.pop(item.value, None)
        return is_made

    def _item(self, item: Item, calls: RunCalls) -> None:
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

    def _take(self, calls: RunCalls, item: Item) -> Item:
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

    def _skip(self, calls: RunCalls) -> None:
        """Skip calls of the run that the record leaves out."""
        while self._is_left_out(calls.next):
            calls.take()

    def _is_left_out(self, item: Item | None) -> bool:
        """Return whether the record leaves out a call.

        It leaves out the guards of the sizes on which loops depend, and computations with turn
        numbers. Of the guards of turn numbers, a loop leaves out only trivial ones.
        """
        if isinstance(item, Call) and item.target == ASSUME and is_of_turns(item):
            return (bool(self._loops) or self._is_behind_loop) and is_trivial(item)
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

    def _loop(self, call: Call, calls: RunCalls) -> None:
        body, turns, carried, given, _ = call.args
        count = self._number(turns)
        if count < 0:
            raise OtherRunError("the loop has fewer than no turns")
        values = [self._of(value) for value in carried]
        given = [self._of(value) for value in given]
        lists: list[list[Any]] = [[] for _ in body.result[len(values) :]]
        for turn in range(count):
            self._loops.append((call, turn, count))
            self._values |= dict(zip(body.inputs, [turn, *values, *given], strict=True))
            self._items(body.items, calls)
            gives = [self._of(value) for value in body.result]
            values = gives[: len(values)]
            for each, value in zip(lists, gives[len(values) :], strict=True):
                each.append(value)
            self._loops.pop()
        self._is_behind_loop = True
        self._values[call.value] = (*values, *lists)

    def _glue(self, call: Call) -> Any:
        if call.target == CHOOSE:
            condition, if_true, if_false = call.args
            answer = self._answer(condition)
            return None if answer is None else self._of(if_true if answer else if_false)
        target = _GLUE.get(call.target)
        args = [self._of(value, to_compute=True) for value in call.args]
        try:
            return None if target is None else target(*args)
        except (ArithmeticError, IndexError, TypeError) as error:
            raise OtherRunError(f"{call.target} of a loop: {error}") from None


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
