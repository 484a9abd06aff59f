"""Writing of a new record, with loops in place of repetitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeAlias

from layergraph.ir import Value
from layergraph.ir.values import parts, rebuilt
from layergraph.torch2ir.tracing.module_call import (
    Call,
    Condition,
    ModuleCall,
    Trace,
    TracedBody,
    TracedValue,
    wish_of,
)
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.loops.choice import Chosen
from layergraph_capture.loops.joined_lists import joined_list
from layergraph_capture.loops.numbers import is_of_turns, number_of_turn
from layergraph_capture.loops.repeats import Item, Repeat
from layergraph_capture.loops.turns import BEGIN, TURN
from layergraph_capture.loops.written import (
    ASSUME,
    GETITEM,
    TUPLE,
    Level,
    NotRollableError,
    Place,
    Rolled,
    WrittenLoop,
    take_facts,
    value_at_start,
)


class Writer:
    """Writes a new record from an old one.

    Args:
        before: the old record, perhaps with loops.
        chosen: the repetitions that become loops.
        write_loop: writes a repetition.
        folds: whether to replace turn numbers outside of loops by integers.

    Attributes:
        glue: the calls that no run makes.
        uncertain: the loops whose other turns may make other calls.
    """

    def __init__(
        self, before: Rolled, chosen: Chosen, write_loop: WriteLoop, *, folds: bool
    ) -> None:
        self._write_loop = write_loop
        self._trace = before.trace
        self._folds = folds
        self._glue_before = before.glue
        self._uncertain_before = before.uncertain
        self._chosen = chosen
        self._recorder = Recorder()
        self.glue: set[Call] = set()
        self.uncertain: set[Call | None] = {None}
        self._only_parts: list[WrittenLoop] = []
        self._values: dict[TracedValue, TracedValue] = {}
        self._places: dict[TracedValue, Place] = {}

    def write(self) -> Rolled:
        """Return the new record.

        Raises:
            NotRollableError: the values of a repetition do not have the form of a loop.
        """
        root, own = self._recorder.root, self._trace.root
        parameters = []
        for each in self._trace.parameters:
            value = self._recorder.value(each.value.wish)
            self.bind(each.value, value)
            parameters.append(replace(each, value=value))
        root.parameters, root.known = own.parameters, set(own.known)
        root.args, root.kwargs = self.read(own.args), self.read(own.kwargs)
        self._scope(own)
        # A run records an element only where code uses it. So a loop that only reads elements is
        # certain if the loops that use these are.
        for written in self._only_parts:
            if not self.uncertain.isdisjoint(written.readers):
                self.uncertain.add(written.call)
        trace = Trace(root, self._trace.constants, parameters)
        uncertain = {each for each in self.uncertain if each is not None}
        return Rolled(trace, self.glue, uncertain)

    # --- levels ---

    @property
    def level(self) -> Level:
        """Return the level that receives items now."""
        return Level(self._recorder.scope, self._recorder.scope.items)

    @contextmanager
    def into(self, items: list[Item]) -> Iterator[Level]:
        """Write items of the current module call into another list, inside a ``with`` block."""
        scope = self._recorder.scope
        before, scope.items = scope.items, items
        try:
            yield self.level
        finally:
            scope.items = before

    def glued(
        self, level: Level, target: str, *args: Value, behind: Call | None = None
    ) -> TracedValue:
        """Return the value of a call that no run makes.

        Args:
            level: the level of the call.
            target: the name of the function.
            args: its arguments, in the new record.
            behind: the call before it; None to append it.
        """
        value = value_at_start(level.scope, wish_of(target))
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
            self._write_loop(self, own.items, repeat)
            at = repeat.end
        self._items(own.items[at:])
        self._recorder.leave(self.read(own.result))

    def _items(self, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, Call) and self._folds and is_of_turns(item):
                if item.target == ASSUME:
                    args = self._computed(item.args[0]), *self.read(item.args[1:])
                    self.call(item, args, {})
            elif isinstance(item, Call):
                value = self.call(item, self.read(item.args), self.read(item.kwargs))
                self.bind(item.value, value)
            else:
                self.enter(item, self.read(item.args), self.read(item.kwargs))
                self._scope(item)

    def _computed(self, value: Value) -> Value:
        """Return the value of a number computed from turn numbers that are now integers."""
        call = value.call if isinstance(value, TracedValue) else None
        if call is None:
            return value
        if call.target in (TURN, BEGIN):
            return call.args[0]
        return self.glued(self.level, call.target, *map(self._computed, call.args))

    def call(self, like: Call, args: Value, kwargs: Value) -> TracedValue:
        """Write a call with other arguments."""
        when = self._condition(like.when)
        value = self._recorder.call(
            like.kind, like.target, args, kwargs, like.where, when, is_late=like.is_late
        )
        if like.bodies and value.call is not None:
            given = (*args, *kwargs.values())
            value.call.bodies = tuple([each for each in given if isinstance(each, TracedBody)])
        if like in self._glue_before and value.call is not None:
            self.glue.add(value.call)
        if like in self._uncertain_before and value.call is not None:
            self.uncertain.add(value.call)
        take_facts(value, like.value)
        return value

    def enter(self, like: ModuleCall, args: Value, kwargs: Value) -> ModuleCall:
        """Begin a module call with other arguments."""
        scope = self._recorder.enter(like.path, self._condition(like.when))
        scope.parameters, scope.known = like.parameters, set(like.known)
        scope.args, scope.kwargs = args, kwargs
        return scope

    def _condition(self, when: Condition | None) -> Condition | None:
        return None if when is None else (self.read(when[0]), when[1])

    def leave(self, result: Value) -> None:
        """End a module call."""
        self._recorder.leave(result)

    # --- values ---

    def bind(self, own: TracedValue, value: TracedValue) -> None:
        """Bind a value of the old record to a value of the new one."""
        self._values[own] = value
        take_facts(value, own)

    def note_parts(self, written: WrittenLoop) -> None:
        """Record a loop that only reads elements."""
        self._only_parts.append(written)

    def note(self, own: TracedValue, place: Place) -> None:
        """Record the loop and turn that compute a value of the old record."""
        self._places[own] = place

    def place_of(self, own: TracedValue) -> Place | None:
        """Return the loop and turn that compute a value; None outside of loops."""
        return self._places.get(own)

    def read(self, value: Value) -> Any:
        """Return the new record's value for a value of the old record."""
        inside = parts(value)
        if inside is None:
            if isinstance(value, TracedBody):
                return self._body(value)
            return self._leaf(value) if isinstance(value, TracedValue) else value
        if type(value) in (list, tuple) and len(inside) > 1:
            whole = joined_list(self, inside)
            if whole is not None:
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
            raise NotRollableError(f"{own.wish} belongs to no call")
        return self._element(*found)

    def _element(self, found: WrittenLoop, turn: int, slot: int) -> TracedValue:
        """Return the value of one turn for readers after the loop."""
        place = slot, found.turns - 1 - turn
        if place in found.finals:
            return self._result(found, found.finals[place])
        whole = self._collected(found, slot)
        return self.glued(found.level, GETITEM, whole, turn, behind=whole.call)

    def _result(self, found: WrittenLoop, index: int) -> TracedValue:
        return self.glued(found.level, GETITEM, found.call.value, index, behind=found.call)

    def list_of(self, found: WrittenLoop, slot: int, reader: Call | None = None) -> TracedValue:
        """Return the list of the values of all turns of a loop.

        Args:
            found: the loop.
            slot: the slot.
            reader: the loop that reads one value in each turn; None for any other use.
        """
        found.readers.append(reader)
        return self._collected(found, slot)

    def _collected(self, found: WrittenLoop, slot: int) -> TracedValue:
        if slot not in found.lists:
            body, turns, carried, given, count = found.call.args
            found.call.args = body, turns, carried, given, count + 1
            found.body.result = (*found.body.result, found.slots[slot])
            found.lists[slot] = self._result(found, found.carried + count)
        return found.lists[slot]

    def _body(self, body: TracedBody) -> TracedBody:
        """Return a copy of a body that reads no values outside."""
        inputs = []
        for each in body.inputs:
            value = value_at_start(self._recorder.scope, each.wish)
            self.bind(each, value)
            inputs.append(value)
        with self.into([]) as level:
            self._items(body.items)
            result = self.read(body.result)
        return TracedBody(body.wish, inputs, level.items, result)


WriteLoop: TypeAlias = Callable[[Writer, Sequence[Item], Repeat], None]
"""A function that writes a repetition among the items of a module call."""
