"""Writing a record in which repetitions are loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from layergraph.ir import Value
from layergraph.ir.values import parts, rebuilt
from layergraph.loops import loop
from layergraph.torch2ir.tracing.module_call import (
    Call,
    ModuleCall,
    Trace,
    TracedBody,
    TracedValue,
    wish_of,
)
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.loops.choice import Chosen
from layergraph_capture.loops.numbers import is_of_turns, number_of_turn
from layergraph_capture.loops.repeats import Item, Repeat
from layergraph_capture.turns import TURN

ASSUME = "layergraph.assume"
LOOP = f"layergraph.{loop.__name__}"
GETITEM = "operator.getitem"
TUPLE = "builtins.tuple"


class NotRollableError(Exception):
    """The values of a repetition do not go from turn to turn as those of a loop do."""


@dataclass(slots=True, eq=False)
class Rolled:
    """A record with loops.

    Attributes:
        trace: the record.
        glue: the calls that no run makes: they lead values into loops and out of them.
    """

    trace: Trace
    glue: set[Call]


@dataclass(slots=True, eq=False)
class _Level:
    """A list of items that is being written.

    Attributes:
        scope: the module call of the values that come about in it.
        items: the items.
    """

    scope: ModuleCall
    items: list[Item]


@dataclass(slots=True, eq=False)
class _Loop:
    """A loop that has been written.

    Attributes:
        turns: the number of its turns in this run.
        level: where it stands.
        call: the call of the loop.
        body: its body.
        slots: the values of a turn, in the new record.
        finals: for each slot that is carried, and a number of turns before the last one, the index
            of that value in the result.
        carried: how many values are carried.
        lists: for each slot that is collected, the list.
    """

    turns: int
    level: _Level
    call: Call
    body: TracedBody
    slots: list[Any]
    finals: dict[tuple[int, int], int]
    carried: int
    lists: dict[int, TracedValue] = field(default_factory=dict)


Place = tuple[_Loop, int, int]
"""The loop, the turn and the slot in which a value of the old record came about."""


def rolled(before: Rolled, chosen: Chosen, *, folds: bool = False) -> Rolled:
    """Return the record in which the chosen repetitions are loops.

    Args:
        before: the record of a run, perhaps with other loops.
        chosen: the repetitions; none is inside of another one.
        folds: whether integers take the places of the numbers of turns that are in no loop.

    Raises:
        NotRollableError: the values of a repetition are not those of a loop.
    """
    return _Writer(before, chosen, folds=folds).write()


class _Writer:
    def __init__(self, before: Rolled, chosen: Chosen, *, folds: bool) -> None:
        self._trace = before.trace
        self._folds = folds
        self._glue_before = before.glue
        self._chosen = chosen
        self._recorder = Recorder()
        self.glue: set[Call] = set()
        self._values: dict[TracedValue, TracedValue] = {}
        self._places: dict[TracedValue, Place] = {}

    def write(self) -> Rolled:
        root, own = self._recorder.root, self._trace.root
        parameters = []
        for each in self._trace.parameters:
            value = self._recorder.value(each.value.wish)
            self.bind(each.value, value)
            parameters.append(replace(each, value=value))
        root.parameters, root.known = own.parameters, set(own.known)
        root.args, root.kwargs = self.read(own.args), self.read(own.kwargs)
        self._scope(own)
        return Rolled(Trace(root, self._trace.constants, parameters), self.glue)

    # --- levels ---

    @property
    def level(self) -> _Level:
        """Where items are written now."""
        return _Level(self._recorder.scope, self._recorder.scope.items)

    @contextmanager
    def into(self, items: list[Item]) -> Iterator[_Level]:
        """Write items of the current module call elsewhere."""
        scope = self._recorder.scope
        before, scope.items = scope.items, items
        try:
            yield self.level
        finally:
            scope.items = before

    def glued(
        self, level: _Level, target: str, *args: Value, behind: Call | None = None
    ) -> TracedValue:
        """Return the value of a call that no run makes.

        Args:
            level: where it stands.
            target: the name of the function.
            args: its arguments, in the new record.
            behind: the call that it follows; None: it comes last.
        """
        value = TracedValue(level.scope.start, level.scope, wish_of(target))
        value.call = Call("function", target, args, {}, value)
        self.glue.add(value.call)
        if behind is None:
            level.items.append(value.call)
        else:
            level.items.insert(level.items.index(behind) + 1, value.call)
        return value

    # --- items ---

    def _scope(self, own: ModuleCall) -> None:
        """Write the items and the result of a module call that has been entered."""
        at = 0
        for repeat in self._chosen.get(own, ()):
            self._items(own.items[at : repeat.start])
            _Region(self, own.items, repeat).write()
            at = repeat.end
        self._items(own.items[at:])
        self._recorder.leave(self.read(own.result))

    def _items(self, items: Sequence[Item]) -> None:
        for item in items:
            if self._folds and is_of_turns(item):
                continue
            if isinstance(item, Call):
                value = self.call(item, self.read(item.args), self.read(item.kwargs))
                self.bind(item.value, value)
            else:
                self.enter(item, self.read(item.args), self.read(item.kwargs))
                self._scope(item)

    def call(self, like: Call, args: Value, kwargs: Value) -> TracedValue:
        """Write a call with other arguments."""
        if like.when is not None:
            raise NotRollableError("a call has a condition")
        value = self._recorder.call(
            like.kind, like.target, args, kwargs, like.where, is_late=like.is_late
        )
        if like.bodies and value.call is not None:
            given = (*args, *kwargs.values())
            value.call.bodies = tuple([each for each in given if isinstance(each, TracedBody)])
        if like in self._glue_before and value.call is not None:
            self.glue.add(value.call)
        take_facts(value, like.value)
        return value

    def enter(self, like: ModuleCall, args: Value, kwargs: Value) -> ModuleCall:
        """Begin a module call with other arguments."""
        if like.when is not None:
            raise NotRollableError("a call has a condition")
        scope = self._recorder.enter(like.path)
        scope.parameters, scope.known = like.parameters, set(like.known)
        scope.args, scope.kwargs = args, kwargs
        return scope

    def leave(self, result: Value) -> None:
        """End a module call."""
        self._recorder.leave(result)

    # --- values ---

    def bind(self, own: TracedValue, value: TracedValue) -> None:
        """Note which value of the new record is one of the old record."""
        self._values[own] = value
        take_facts(value, own)

    def note(self, own: TracedValue, place: Place) -> None:
        """Note in which turn of a loop a value of the old record came about."""
        self._places[own] = place

    def place_of(self, own: TracedValue) -> Place | None:
        """Return in which turn of a loop a value came about; None if in no loop."""
        return self._places.get(own)

    def read(self, value: Value) -> Any:
        """Return a value of the old record as one of the new record."""
        inside = parts(value)
        if inside is None:
            if isinstance(value, TracedBody):
                return self._body(value)
            return self._leaf(value) if isinstance(value, TracedValue) else value
        if type(value) in (list, tuple) and len(inside) > 1:
            segments = [*self._segments(inside)]
            if any(isinstance(each, _Part) for each in segments):
                whole = self._joined(segments)
                return whole if type(value) is list else self.glued(self.level, TUPLE, whole)
        return rebuilt(value, [self.read(each) for each in inside])

    def _leaf(self, own: TracedValue) -> TracedValue | int:
        if own in self._values:
            return self._values[own]
        number: int | None = number_of_turn(own)
        if number is not None:
            return number
        found = self._places.get(own)
        if found is None:
            raise NotRollableError(f"{own.wish} came about in no call")
        return self._element(*found)

    def _element(self, found: _Loop, turn: int, slot: int) -> TracedValue:
        """Return the value of one turn of a loop, after the loop."""
        place = slot, found.turns - 1 - turn
        if place in found.finals:
            return self._result(found, found.finals[place])
        whole = self.list_of(found, slot)
        return self.glued(found.level, GETITEM, whole, turn, behind=whole.call)

    def _result(self, found: _Loop, index: int) -> TracedValue:
        return self.glued(found.level, GETITEM, found.call.value, index, behind=found.call)

    def list_of(self, found: _Loop, slot: int) -> TracedValue:
        """Return the list of the values of all turns of a loop."""
        if slot not in found.lists:
            body, turns, carried, given, count = found.call.args
            found.call.args = body, turns, carried, given, count + 1
            found.body.result = (*found.body.result, found.slots[slot])
            found.lists[slot] = self._result(found, found.carried + count)
        return found.lists[slot]

    def _body(self, body: TracedBody) -> TracedBody:
        """Return a copy of a body, which reads nothing from outside."""
        inputs = []
        for each in body.inputs:
            value = self.new_value(self._recorder.scope, each.wish)
            self.bind(each, value)
            inputs.append(value)
        with self.into([]) as level:
            self._items(body.items)
            result = self.read(body.result)
        return TracedBody(body.wish, inputs, level.items, result)

    def new_value(self, scope: ModuleCall, wish: str) -> TracedValue:
        """Return a value that is there when a module call begins."""
        return TracedValue(scope.start, scope, wish)

    # --- lists with a value of each turn ---

    def _segments(self, inside: Sequence[Value]) -> Iterator[Value | _Part]:
        """Yield the items of a list, and parts that are values of turns one after another."""
        at = 0
        while at < len(inside):
            part = self._part(inside, at)
            if part is None:
                yield inside[at]
                at += 1
            else:
                yield part
                at += part.count

    def _part(self, inside: Sequence[Value], at: int) -> _Part | None:
        first, second = (
            self._places.get(each) if isinstance(each, TracedValue) else None
            for each in (inside[at], inside[at + 1] if at + 1 < len(inside) else None)
        )
        if first is None or second is None or (first[0], first[2]) != (second[0], second[2]):
            return None
        step = second[1] - first[1]
        if step == 0:
            return None
        count = 2
        while at + count < len(inside) and isinstance(each := inside[at + count], TracedValue):
            if self._places.get(each) != (first[0], first[1] + count * step, first[2]):
                break
            count += 1
        if count == 2 and abs(step) > 1:
            return None
        return _Part(first[0], first[2], first[1], step, count)

    def _joined(self, segments: Sequence[Value | _Part]) -> TracedValue:
        """Return the list that is made of items and parts."""
        lists: list[Value] = []
        for each in segments:
            if isinstance(each, _Part):
                lists.append(self._slice(each))
            elif lists and type(lists[-1]) is list:
                lists[-1].append(self.read(each))
            else:
                lists.append([self.read(each)])
        whole = lists[0]
        for each in lists[1:]:
            whole = self.glued(self.level, "operator.add", whole, each)
        return whole  # type: ignore[no-any-return]  # there is a part, which is a value

    def _slice(self, part: _Part) -> TracedValue:
        whole = self.list_of(part.loop, part.slot)
        last = part.first + part.step * (part.count - 1)
        if part.step == 1 and part.first == 0 and part.count == part.loop.turns:
            return whole
        end: int | None = last + (1 if part.step > 0 else -1)
        begin: int | None = part.first
        if part.step < 0 and last == 0:
            end = None
        if part.step > 0 and last + part.step >= part.loop.turns:
            end = None
        if part.step < 0 and part.first == part.loop.turns - 1:
            begin = None
        taken = slice(begin, end, part.step)
        return self.glued(part.loop.level, GETITEM, whole, taken, behind=whole.call)


@dataclass(frozen=True, slots=True)
class _Part:
    """Values of turns of a loop, one after another in a list.

    Attributes:
        loop: the loop.
        slot: the slot.
        first: the turn of the first value.
        step: how many turns the next value is ahead.
        count: the number of values.
    """

    loop: _Loop
    slot: int
    first: int
    step: int
    count: int


def take_facts(value: TracedValue, like: TracedValue) -> None:
    """Take over what is known of a value."""
    value.wish, value.rank, value.dtype = like.wish, like.rank, like.dtype
    value.number = like.number


class _Region:
    """One repetition that becomes a loop.

    All turns are read side by side. An argument that is the same in each turn is given to the body;
    one that came about in the turn before is carried; an integer that grows from turn to turn is
    computed from the number of the turn.

    Args:
        writer: writes the record.
        items: the items of the module call.
        repeat: the repetition.
    """

    def __init__(self, writer: _Writer, items: Sequence[Item], repeat: Repeat) -> None:
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
        # The values of a turn in the body; integers for the numbers of turns.
        self._slots: list[Any] = []
        scope = self._around.scope
        self._turn = writer.new_value(scope, "turn")
        # By slot and the values that the first turns read instead: the inputs of the body, that of
        # the last turn first. Likewise for lists that grow.
        self._carried: dict[tuple[int, tuple[TracedValue, ...]], list[TracedValue]] = {}
        self._growing: dict[int, TracedValue] = {}
        # By value outside, in the new record: the input of the body.
        self._given: dict[TracedValue, TracedValue] = {}

    def write(self) -> None:
        writer, scope = self._writer, self._around.scope
        with writer.into([]) as level:
            self._level = level
            self._items(self._turns)
            grown = [
                writer.glued(level, "operator.add", value, [self._slots[slot]])
                for slot, value in self._growing.items()
            ]
        # Each carried value is that of the turn before, and those before move on by one.
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
        value = TracedValue(scope.start, scope, loop.__name__)
        args = body, len(self._turns), tuple(first), tuple(self._given), 0
        call = value.call = Call("function", LOOP, args, {}, value, bodies=(body,))
        self._around.items.append(call)
        turns = len(self._turns)
        written = _Loop(turns, self._around, call, body, self._slots, finals, len(result))
        for own, (turn, slot) in self._own.items():
            writer.note(own, (written, turn, slot))

    # --- items, those of all turns side by side ---

    def _items(self, turns: Sequence[Sequence[Item]]) -> None:
        for items in zip(*turns, strict=True):
            first = items[0]
            if isinstance(first, Call) and first.target == TURN:
                self._slots.append(self._index([item.args[0] for item in items]))
                continue
            if all(map(_is_trivial, items)):
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
        """Return what an argument is in the body, given what it is in each turn."""
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
            # Bodies of one form; verification compares what they do.
            return self._writer.read(first)
        if type(first) is int and any(each != first for each in values):
            return self._index(values)
        if any(repr(each) != repr(first) for each in values):
            raise NotRollableError("an argument is another one in another turn")
        return first

    def _index(self, values: Sequence[int]) -> Value:
        """Return an integer that grows by the same number from turn to turn."""
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
            if lag == 0 and later == [(turn, slot) for turn in range(len(later))]:
                return self._slots[slot]
            if lag and later == [(turn, slot) for turn in range(len(later))]:
                return self._carry(slot, tuple(values[:lag]))
        return self._of_other_loop(values)

    def _carry(self, slot: int, first: tuple[TracedValue, ...]) -> TracedValue:
        """Return the value that came about some turns before; the first turns read others."""
        if (slot, first) not in self._carried:
            inputs = []
            for each in reversed(first):
                value = self._writer.new_value(self._around.scope, each.wish)
                take_facts(value, each)
                inputs.append(value)
            self._carried[slot, first] = inputs
        return self._carried[slot, first][-1]

    def _outside(self, value: TracedValue) -> TracedValue:
        """Return a value from outside as one of the body."""
        if value not in self._given:
            self._given[value] = self._writer.new_value(self._around.scope, value.wish)
            take_facts(self._given[value], value)
        return self._given[value]

    def _of_other_loop(self, values: Sequence[TracedValue]) -> TracedValue:
        """Return the item of a list that a loop before this one has collected."""
        places = [self._writer.place_of(each) for each in values]
        known = [each for each in places if each is not None]
        if len(known) < len(places) or len({(each[0], each[2]) for each in known}) > 1:
            raise NotRollableError("a value comes from elsewhere in another turn")
        whole = self._writer.list_of(known[0][0], known[0][2])
        index = self._index([turn for _, turn, _ in known]) if len(known) > 1 else known[0][1]
        given = self._outside(whole)
        return self._writer.glued(self._writer.level, GETITEM, given, index)

    def _grown(self, values: Sequence[Value]) -> TracedValue:
        """Return a list that gets one more value of an earlier turn in each turn."""
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
            self._growing[slot] = self._writer.new_value(self._around.scope, "values")
        whole: TracedValue = self._growing[slot]
        level = self._writer.level
        head = self._merged([each[:at] for each in values])
        tail = self._merged([each[at + turn :] for turn, each in enumerate(values)])
        if head:
            whole = self._writer.glued(level, "operator.add", head, whole)
        return self._writer.glued(level, "operator.add", whole, tail) if tail else whole


def _is_trivial(item: Item) -> bool:
    """Return whether a call is a guard that the number of a turn is what it is."""
    if not isinstance(item, Call) or item.target != ASSUME or not is_of_turns(item):
        return False
    number = item.args[1]
    return type(number) is int and number == number_of_turn(item.args[0])


def _calls(items: Sequence[Item]) -> Iterator[Call]:
    """Yield the calls of items and of the module calls among them, in order."""
    for item in items:
        if isinstance(item, Call):
            yield item
        else:
            yield from _calls(item.items)
