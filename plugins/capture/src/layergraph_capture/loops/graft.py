"""Writing of the other way of a decision into a record with loops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from layergraph.ir import Value, map_leaves
from layergraph.torch2ir.folding.conditions import call_of_choose
from layergraph.torch2ir.tracing.module_call import (
    Call,
    Condition,
    FunctionRead,
    ModuleCall,
    TracedBody,
    TracedValue,
    calls_in,
)
from layergraph_capture.loops.numbers import COMPUTED, is_of_turns, number_of_turn
from layergraph_capture.loops.repeats import Item
from layergraph_capture.loops.way_walks import Asked, Frame, OtherWay
from layergraph_capture.loops.written import (
    NotRollableError,
    Rolled,
    take_facts,
    value_at_start,
)


def own_way(asked: Asked, own: int, rolled: Rolled) -> tuple[list[Item], list[Item]]:
    """Return the items of the record's way of a decision, and those that either way can compute.

    Args:
        asked: the decision.
        own: the number of items behind it that belong to the way.
        rolled: the record.
    """
    items = asked.items[asked.index + 1 :][:own]
    made: set[TracedValue] = set()
    kept: list[Item] = []
    for item in items:
        if item in rolled.glue and item.when is None and made.isdisjoint(item.reads()):
            kept.append(item)
        else:
            made |= {each.value for each in _calls(item)}
    return [each for each in items if each not in kept], kept


def graft(rolled: Rolled, asked: Asked, own: int, way: OtherWay, *, answer: bool) -> None:
    """Write the other way of a decision into a record.

    Args:
        rolled: the record, which goes one way.
        asked: the decision.
        own: the number of items behind it that belong to its way.
        way: the other way.
        answer: the answer for the way of the record.

    Raises:
        NotRollableError: the other way reads or gives what the record cannot pass on.
    """
    _Graft(rolled, asked, way).write(own, answer=answer)


class _Graft:
    def __init__(self, rolled: Rolled, asked: Asked, way: OtherWay) -> None:
        self._rolled = rolled
        self._asked = asked
        self._way = way
        self._scope = asked.site.value.scope
        # The record's values for the values of the run that the other way computes.
        self._values: dict[TracedValue, TracedValue] = {}
        self._written: list[Item] = []
        self._when: Condition = (asked.site.value, False)

    def write(self, own: int, *, answer: bool) -> None:
        site, items = self._asked.site, self._asked.items
        if not isinstance(items, list):
            raise NotRollableError("the items around a decision are fixed")
        mine, _ = own_way(self._asked, own, self._rolled)
        self._when = site.value, not answer
        for item in self._way.items:
            self._item(item)
        inside = {each.value for item in mine for each in _calls(item)}
        for item in mine:
            if item.when is None or item.when == site.when:
                item.when = site.value, answer
            elif item.when[0] not in inside:
                raise NotRollableError("a way depends on two decisions")
        chosen: dict[TracedValue, TracedValue] = {}
        chooses: list[Item] = []
        for lost, other in self._way.learned.items():
            both = (lost, self._read(other)) if answer else (self._read(other), lost)
            call = call_of_choose((site.value, *both), value_at_start(self._scope, ""))
            call.value.wish = lost.wish
            if isinstance(other, TracedValue) and (other.rank, other.dtype) == (
                lost.rank,
                lost.dtype,
            ):
                call.value.rank, call.value.dtype = lost.rank, lost.dtype
            self._rolled.glue.add(call)
            chosen[lost] = call.value
            chooses.append(call)
        _rename(self._rolled.trace.root, chosen, {*mine})
        at = self._asked.index + 1
        items[at + own : at + own] = chooses
        items[at:at] = self._written

    # --- the calls of the other way ---

    def _item(self, item: Item) -> None:
        if isinstance(item, Call) and is_of_turns(item):
            return
        written = self._copied(item, self._scope)
        written.when = self._when
        self._written.append(written)

    def _copied(self, item: Item, scope: ModuleCall) -> Item:
        if isinstance(item, Call):
            return self._call(item, scope)
        if item.function:
            raise NotRollableError("the other way takes a function")
        args, kwargs = self._read(item.args), self._read(item.kwargs)
        copied = ModuleCall(
            item.path, scope, scope.start, depth=scope.depth + 1, parameters=item.parameters
        )
        copied.args, copied.kwargs, copied.known = args, kwargs, set(item.known)
        for each in item.items:
            if not (isinstance(each, Call) and is_of_turns(each)):
                copied.items.append(self._copied(each, copied))
        copied.result = self._read(item.result)
        return copied

    def _call(self, item: Call, scope: ModuleCall, *, is_glue: bool = False) -> Call:
        args, kwargs = self._read(item.args), self._read(item.kwargs)
        value = value_at_start(scope, item.value.wish)
        take_facts(value, item.value)
        value.call = Call(
            item.kind, item.target, args, kwargs, value, item.where, is_late=item.is_late
        )
        self._values[item.value] = value
        if is_glue:
            self._rolled.glue.add(value.call)
        return value.call

    # --- values ---

    def _read(self, value: Value) -> Any:
        return map_leaves(self._leaf, value)

    def _leaf(self, leaf: Value) -> Value:
        if isinstance(leaf, FunctionRead | TracedBody):
            raise NotRollableError("the other way takes a function")
        if not isinstance(leaf, TracedValue):
            return leaf
        if leaf not in self._values:
            self._values[leaf] = self._outside(leaf)
        return self._values[leaf]

    def _outside(self, value: TracedValue) -> TracedValue:
        """Return the record's value for a value of the run from before the decision."""
        frames = self._way.frames
        number = number_of_turn(value)
        for depth in reversed(range(len(frames))):
            for known, there in reversed(frames[depth].values):
                if there is value or getattr(there, "value", None) is value:
                    return _given(frames, depth, known)
                if number is not None and type(there) is type(number) and there == number:
                    return _given(frames, depth, known)
        call = value.call
        is_read = call is not None and call in self._way.aside
        if call is None or not (is_read or call.target in COMPUTED):
            raise NotRollableError(f"the other way reads {value.wish} from elsewhere")
        copied = self._call(call, self._scope, is_glue=not is_read)
        copied.when = self._when
        self._written.append(copied)
        return copied.value


def _given(frames: Sequence[Frame], depth: int, value: TracedValue) -> TracedValue:
    """Return the input of the innermost body for a value around it."""
    for frame in frames[depth + 1 :]:
        loop = frame.loop
        if loop is None:
            continue
        body, turns, carried, given, count = loop.args
        if value not in given:
            loop.args = body, turns, carried, (*given, value), count
            inside = value_at_start(loop.value.scope, value.wish)
            take_facts(inside, value)
            body.inputs.append(inside)
            given = loop.args[3]
        value = body.inputs[1 + len(carried) + given.index(value)]
    return value


def _calls(item: Item) -> Iterable[Call]:
    return [item] if isinstance(item, Call) else calls_in(item)


def _rename(scope: ModuleCall, chosen: dict[TracedValue, TracedValue], but: set[Item]) -> None:
    """Read chosen values in place of others, outside of some items."""
    if not chosen:
        return

    def leaf(value: Value) -> Value:
        return chosen.get(value, value) if isinstance(value, TracedValue) else value

    def items(these: Sequence[Item]) -> None:
        for item in these:
            if item in but:
                continue
            item.args, item.kwargs = map_leaves(leaf, item.args), map_leaves(leaf, item.kwargs)
            if item.when is not None:
                item.when = map_leaves(leaf, item.when)
            if isinstance(item, ModuleCall):
                inside(item)
            else:
                for body in item.bodies:
                    items(body.items)
                    body.result = map_leaves(leaf, body.result)

    def inside(call: ModuleCall) -> None:
        items(call.items)
        call.result = map_leaves(leaf, call.result)

    inside(scope)
