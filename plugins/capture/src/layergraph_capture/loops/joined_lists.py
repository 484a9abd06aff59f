"""Lists that hold values of the turns of loops: they become the lists that the loops collect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from layergraph.control_flow.loops import loop
from layergraph.ir import Value
from layergraph.ir.values import map_leaves
from layergraph.torch2ir.tracing.module_call import TracedBody, TracedValue
from layergraph_capture.loops.joined_records import Records, records_at
from layergraph_capture.loops.written import (
    GETITEM,
    LOOP,
    Place,
    WrittenLoop,
    take_facts,
    value_at_start,
)

if TYPE_CHECKING:
    from layergraph_capture.loops.writer import Writer


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive items of a list that are values of turns of one loop.

    Attributes:
        loop: the loop.
        slots: the slots of the values of a turn, in the order of the list.
        first: the turn of the first value.
        step: the number of turns from one turn of the part to the next.
        count: the number of turns.
    """

    loop: WrittenLoop
    slots: tuple[int, ...]
    first: int
    step: int
    count: int


Segment: TypeAlias = "Value | Part | Records"


def joined_list(writer: Writer, items: Sequence[Value]) -> TracedValue | None:
    """Return a list that is joined from lists of loops; None if it holds no such part.

    Args:
        writer: writes the record.
        items: the items of the list in the old record.
    """
    segments = [*_segments(writer, items)]
    is_joined = any(isinstance(each, Part | Records) for each in segments)
    return _joined(writer, segments) if is_joined else None


def _segments(writer: Writer, inside: Sequence[Value]) -> Iterator[Segment]:
    """Yield the items of a list, with consecutive values of turns as parts."""
    at = 0
    while at < len(inside):
        part = _part(writer, inside, at)
        records = records_at(writer, inside, at) if part is None else None
        yield part or records or inside[at]
        at += part.count * len(part.slots) if part else records.count if records else 1


def _part(writer: Writer, inside: Sequence[Value], at: int) -> Part | None:
    def place(index: int) -> Place | None:
        each = inside[index] if index < len(inside) else None
        return writer.place_of(each) if isinstance(each, TracedValue) else None

    first = place(at)
    if first is None:
        return None
    of, begin, _ = first
    slots: list[int] = []
    while (found := place(at + len(slots))) is not None and found[:2] == (of, begin):
        slots.append(found[2])
    if found is None or found[0] is not of:
        return None
    step, count = found[1] - begin, 1
    while all(
        place(at + count * len(slots) + index) == (of, begin + count * step, slot)
        for index, slot in enumerate(slots)
    ):
        count += 1
    return Part(of, tuple(slots), begin, step, count) if count >= min(3, of.turns) else None


def _joined(writer: Writer, segments: Sequence[Segment]) -> TracedValue:
    """Return the list joined from items and parts."""
    lists: list[Value] = []
    for each in segments:
        if isinstance(each, Part):
            lists.append(_interleaved(writer, each))
        elif isinstance(each, Records):
            lists.append(_collected(writer, each))
        elif lists and type(lists[-1]) is list:
            lists[-1].append(writer.read(each))
        else:
            lists.append([writer.read(each)])
    whole = lists[0]
    for each in lists[1:]:
        whole = writer.glued(writer.level, "operator.add", whole, each)
    return whole  # type: ignore[no-any-return]  # there is a part, which is a value


def _interleaved(writer: Writer, part: Part) -> TracedValue:
    """Return the list of a part; of several values of each turn, a loop joins their lists."""
    wholes = [_slice(writer, part, slot) for slot in part.slots]
    if len(wholes) == 1:
        return wholes[0]
    scope = writer.level.scope
    turn, values = (value_at_start(scope, wish) for wish in ("turn", "values"))
    inputs = [value_at_start(scope, each.wish) for each in wholes]
    with writer.into([]) as level:
        items = [writer.glued(level, GETITEM, each, turn) for each in inputs]
        grown = writer.glued(level, "operator.add", values, items)
    body = TracedBody(loop.__name__, [turn, values, *inputs], level.items, (grown,))
    return _first_of_loop(writer, body, part.count, ([],), tuple(wholes), 0)


def _collected(writer: Writer, records: Records) -> TracedValue:
    """Return the list of containers, which a loop makes."""
    scope = writer.level.scope
    turn = value_at_start(scope, "turn")
    given: dict[TracedValue, TracedValue] = {}
    columns = iter(records.columns)

    def outside(value: TracedValue) -> TracedValue:
        if value not in given:
            given[value] = value_at_start(scope, value.wish)
            take_facts(given[value], value)
        return given[value]

    def leaf(own: Value) -> Value:
        column = next(columns)
        if column is not None:
            part = Part(column.loop, (column.slot,), column.first, column.step, records.count)
            whole = _slice(writer, part, column.slot)
            return writer.glued(level, GETITEM, outside(whole), turn)
        value = writer.read(own)
        return outside(value) if isinstance(value, TracedValue) else value

    with writer.into([]) as level:
        record = map_leaves(leaf, records.like)
    body = TracedBody(loop.__name__, [turn, *given.values()], level.items, (record,))
    return _first_of_loop(writer, body, records.count, (), tuple(given), 1)


def _first_of_loop(writer: Writer, body: TracedBody, turns: int, *args: Value) -> TracedValue:
    """Return the first value that a loop gives."""
    gave = writer.glued(writer.level, LOOP, body, turns, *args)
    if gave.call is not None:
        gave.call.bodies = (body,)
    return writer.glued(writer.level, GETITEM, gave, 0)


def _slice(writer: Writer, part: Part, slot: int) -> TracedValue:
    whole = writer.list_of(part.loop, slot)
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
    return writer.glued(part.loop.level, GETITEM, whole, taken, behind=whole.call)
