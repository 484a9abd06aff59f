"""Conversion of repetitions to loops, by comparing all turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from layergraph.control_flow.loops import loop
from layergraph.control_flow.regions import REGIONS, enter_autocast
from layergraph.ir import Value
from layergraph.ir.values import parts, rebuilt
from layergraph.torch2ir.tracing.module_call import Call, ModuleCall, TracedBody, TracedValue
from layergraph_capture.loops.choice import Chosen
from layergraph_capture.loops.numbers import is_trivial
from layergraph_capture.loops.repeats import Item, Repeat
from layergraph_capture.loops.turns import BEGIN, TURN
from layergraph_capture.loops.writer import Writer
from layergraph_capture.loops.written import (
    GETITEM,
    LOOP,
    NotRollableError,
    Rolled,
    WrittenLoop,
    take_facts,
    value_at_start,
)


def rolled(before: Rolled, chosen: Chosen, *, folds: bool = False) -> Rolled:
    """Return the record in which the chosen repetitions are loops.

    Args:
        before: the record of a run, perhaps with other loops.
        chosen: the repetitions; none is inside of another one.
        folds: whether to replace turn numbers outside of loops by integers.

    Raises:
        NotRollableError: the values of a repetition do not have the form of a loop.
    """
    return Writer(before, chosen, _write_loop, folds=folds).write()


def _write_loop(writer: Writer, items: Sequence[Item], repeat: Repeat) -> None:
    _Region(writer, items, repeat).write()


class _Region:
    """One repetition that becomes a loop.

    We compare the arguments of all turns. An argument that is the same in each turn becomes a given
    input of the body. A result of the turn before becomes a carried value. An integer that grows
    evenly is computed from the number of the turn.

    Args:
        writer: writes the record.
        items: the items of the module call.
        repeat: the repetition.
    """

    def __init__(self, writer: Writer, items: Sequence[Item], repeat: Repeat) -> None:
        self._writer = writer
        self._around = writer.level
        self._turns = [
            items[repeat.start + turn * repeat.period :][: repeat.period]
            for turn in range(repeat.turns)
        ]
        self._own: dict[TracedValue, tuple[int, int]] = {}
        for number, turn in enumerate(self._turns):
            for slot, call in enumerate(_calls(turn)):
                self._own[call.value] = number, slot
        # The body's values; integers in place of turn numbers.
        self._slots: list[Any] = []
        self._is_certain = self._is_marked()
        scope = self._around.scope
        self._turn = value_at_start(scope, "turn")
        value = TracedValue(scope.start, scope, loop.__name__)
        self._call = value.call = Call("function", LOOP, (), {}, value)
        # The inputs of the body for carried values, that of the latest turn first; by slot and the
        # values that the first turns read instead. Growing lists have such an entry, too.
        self._carried: dict[tuple[int, tuple[TracedValue, ...]], list[TracedValue]] = {}
        self._growing: dict[int, TracedValue] = {}
        # The input of the body for each value outside, in the new record.
        self._given: dict[TracedValue, TracedValue] = {}
        # The read items of lists that earlier loops collected, by the list and the first two turns.
        self._read: dict[tuple[TracedValue, int, int], TracedValue] = {}

    def write(self) -> None:
        writer = self._writer
        with writer.into([]) as level:
            self._items(self._turns)
            grown = [
                writer.glued(level, "operator.add", value, [self._slots[slot]])
                for slot, value in self._growing.items()
            ]
        # Each carried value shifts by one turn.
        result: list[Value] = []
        first: list[Value] = []
        finals: dict[tuple[int, int], int] = {}
        for (slot, values), inputs in self._carried.items():
            for back, value in enumerate(reversed(values)):
                finals.setdefault((slot, back), len(result))
                result.append(self._slots[slot] if back == 0 else inputs[back - 1])
                first.append(writer.read(value))
        result += grown
        first += [[] for _ in grown]
        carried = [value for inputs in self._carried.values() for value in inputs]
        inputs = [self._turn, *carried, *self._growing.values(), *self._given.values()]
        body = TracedBody(loop.__name__, inputs, level.items, tuple(result))
        args = body, len(self._turns), tuple(first), tuple(self._given), 0
        self._call.args, self._call.bodies = args, (body,)
        self._around.items.append(self._call)
        turns = len(self._turns)
        written = WrittenLoop(
            turns, self._around, self._call, body, self._slots, finals, len(result)
        )
        if not _are_closed(level.items):
            raise NotRollableError("a region begins in one turn and ends in another")
        if all(_is_part(item) for item in self._turns[0]):
            writer.note_parts(written)
        elif not self._is_certain or self._growing:
            writer.uncertain.add(self._call)
        for own, (turn, slot) in self._own.items():
            writer.note(own, (written, turn, slot))

    def _is_marked(self) -> bool:
        """Return whether a ``for`` statement makes the turns, and all begin in the same state.

        If a turn ends in the plain state in which it began, each later turn does so too.
        """
        marks = [
            [item for item in turn if isinstance(item, Call) and item.target == BEGIN]
            for turn in self._turns
        ]
        if len({len(each) for each in marks}) > 1:
            return False
        return any(_marks_turns(begins) for begins in zip(*marks, strict=True))

    # --- items, those of all turns side by side ---

    def _items(self, turns: Sequence[Sequence[Item]]) -> None:
        for items in zip(*turns, strict=True):
            first = items[0]
            if isinstance(first, Call) and first.target in (TURN, BEGIN):
                self._slots.append(self._index([item.args[0] for item in items]))
                continue
            if all(map(is_trivial, items)):
                self._is_certain = False
                self._slots.append(None)
                continue
            args = self._merged([item.args for item in items])
            kwargs = self._merged([item.kwargs for item in items])
            if isinstance(first, Call):
                self._slots.append(self._writer.call(first, args, kwargs))
                continue
            self._writer.enter(first, args, kwargs)
            inner = [item for item in items if isinstance(item, ModuleCall)]
            self._items([item.items for item in inner])
            self._writer.leave(self._merged([item.result for item in inner]))

    # --- values, those of all turns side by side ---

    def _merged(self, values: Sequence[Value]) -> Any:
        """Return an argument in the body, from its values in all turns."""
        first = values[0]
        if any(type(each) is not type(first) for each in values):
            raise NotRollableError("an argument is of another type in another turn")
        columns = [parts(each) for each in values]
        if columns[0] is None:
            return self._leaf(values)
        if len({len(each or ()) for each in columns}) > 1:
            return self._grown(values)
        if type(first) is dict and any(list(each) != list(first) for each in values):
            raise NotRollableError("an argument has other keys in another turn")
        return rebuilt(first, [self._merged(each) for each in zip(*columns, strict=True)])

    def _leaf(self, values: Sequence[Value]) -> Value:
        first = values[0]
        if isinstance(first, TracedValue):
            return self._traced(values)
        if isinstance(first, TracedBody):
            # Bodies of one form; the verification compares their calls.
            return self._writer.read(first)
        if type(first) is int and any(each != first for each in values):
            return self._index(values)
        if any(repr(each) != repr(first) for each in values):
            raise NotRollableError("an argument is another one in another turn")
        return first

    def _index(self, values: Sequence[int]) -> Value:
        """Return the value for an integer that grows evenly."""
        start, step = values[0], values[1] - values[0]
        if any(value != start + turn * step for turn, value in enumerate(values)):
            raise NotRollableError("an integer does not grow evenly from turn to turn")
        if step == 0:
            return start
        number = self._turn
        level = self._writer.level
        if step != 1:
            number = self._writer.glued(level, "operator.mul", number, step)
        return self._writer.glued(level, "operator.add", number, start) if start else number

    def _traced(self, values: Sequence[TracedValue]) -> Any:
        first = values[0]
        if first not in self._own and all(each is first for each in values):
            outside = self._writer.read(first)
            return self._outside(outside) if isinstance(outside, TracedValue) else outside
        places = [self._own.get(each) for each in values]
        lag = next((turn for turn, place in enumerate(places) if place is not None), len(places))
        later = places[lag:]
        slots = {place[1] for place in later if place is not None}
        if len(slots) == 1 and None not in later:
            slot = slots.pop()
            if later == [(turn, slot) for turn in range(len(later))]:
                return self._carry(slot, tuple(values[:lag])) if lag else self._slots[slot]
        return self._of_other_loop(values)

    def _carry(self, slot: int, first: tuple[TracedValue, ...]) -> TracedValue:
        """Return the value of some turns before; the first turns read values outside the loop."""
        if (slot, first) not in self._carried:
            inputs = []
            for each in reversed(first):
                value = value_at_start(self._around.scope, each.wish)
                take_facts(value, each)
                inputs.append(value)
            self._carried[slot, first] = inputs
        return self._carried[slot, first][-1]

    def _outside(self, value: TracedValue) -> TracedValue:
        """Return the input of the body for a value outside."""
        if value not in self._given:
            self._given[value] = value_at_start(self._around.scope, value.wish)
            take_facts(self._given[value], value)
        return self._given[value]

    def _of_other_loop(self, values: Sequence[TracedValue]) -> TracedValue:
        """Return the item of a list that an earlier loop has collected."""
        places = [self._writer.place_of(each) for each in values]
        known = [each for each in places if each is not None]
        if len(known) < len(places) or len({(each[0], each[2]) for each in known}) > 1:
            raise NotRollableError("a value comes from elsewhere in another turn")
        found, _, slot = known[0]
        turns = [turn for _, turn, _ in known]
        whole = self._writer.list_of(found, slot, self._call)
        key = whole, turns[0], turns[1]
        item = self._read.get(key)
        scope = self._writer.level.scope
        if item is None or not _is_inside(scope, item.scope):
            index = self._index(turns)
            given = self._outside(whole)
            item = self._read[key] = self._writer.glued(self._writer.level, GETITEM, given, index)
        return item

    def _grown(self, values: Sequence[Value]) -> TracedValue:
        """Return the value for a list that grows by one value in each turn."""
        before, after = values[0], values[1]
        at = next(
            (n for n, each in enumerate(after) if self._own.get(each, (-1, 0))[0] == 0),
            len(after),
        )
        rest = len(before) - at
        if type(before) is not list or at == len(after) or rest < 0:
            raise NotRollableError("a list grows otherwise than by one value of each turn")
        slot = self._own[after[at]][1]
        for turn, each in enumerate(values):
            grown = [self._own.get(one) for one in each[at : at + turn]]
            if len(each) != at + turn + rest or grown != [(n, slot) for n in range(turn)]:
                raise NotRollableError("a list grows otherwise than by one value of each turn")
        if slot not in self._growing:
            self._growing[slot] = value_at_start(self._around.scope, "values")
        whole: TracedValue = self._growing[slot]
        level = self._writer.level
        head = self._merged([each[:at] for each in values])
        tail = self._merged([each[at + turn :] for turn, each in enumerate(values)])
        if head:
            whole = self._writer.glued(level, "operator.add", head, whole)
        return self._writer.glued(level, "operator.add", whole, tail) if tail else whole


def _is_inside(scope: ModuleCall | None, other: ModuleCall) -> bool:
    """Return whether a module call is another one, or inside it."""
    while scope is not None and scope is not other:
        scope = scope.parent
    return scope is other


def _is_part(item: Item) -> bool:
    """Return whether an item reads an element, which a run records only if it is used."""
    return isinstance(item, Call) and item.is_late and item.target == GETITEM


def _are_closed(items: Sequence[Item]) -> bool:
    """Return whether each region that begins in a body ends there, and no others end there."""
    begun: set[TracedValue] = set()
    for item in items:
        if isinstance(item, Call) and item.target in _REGIONS:
            ended = item.args[0]
            if item.target == _ENTER or not isinstance(ended, TracedValue):
                begun.add(item.value)
            elif ended in begun:
                begun.remove(ended)
            else:
                return False
    return not begun


_REGIONS = frozenset(f"layergraph.{each.__name__}" for each in REGIONS)
_ENTER = f"layergraph.{enter_autocast.__name__}"


def _marks_turns(begins: Sequence[Call]) -> bool:
    """Return whether calls mark successive turns, all except the first in the same state."""
    first, *loop = begins[0].args
    if any(begin.args != (first + turn, *loop) for turn, begin in enumerate(begins)):
        return False
    # The first turn defines variables that later turns find.
    states = [begin.where for begin in begins if begin.args[0] > 0]
    return len(states) > 1 and len({*states}) == 1


def _calls(items: Sequence[Item]) -> Iterator[Call]:
    """Yield the calls of items and of the module calls among them, in order."""
    for item in items:
        if isinstance(item, Call):
            yield item
        else:
            yield from _calls(item.items)
