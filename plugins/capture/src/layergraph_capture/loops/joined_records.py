"""Lists of containers, such as one dict per turn, whose values are values of the turns of loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layergraph.ir import Value
from layergraph.ir.values import leaves, map_leaves, parts
from layergraph.torch2ir.tracing.module_call import TracedValue
from layergraph_capture.loops.written import Place, WrittenLoop

if TYPE_CHECKING:
    from layergraph_capture.loops.writer import Writer


@dataclass(frozen=True, slots=True)
class Column:
    """The values at one place of each container: those of successive turns of a loop.

    Attributes:
        loop: the loop.
        slot: the slot of the values.
        first: the turn of the first value.
        step: the number of turns from one value to the next.
    """

    loop: WrittenLoop
    slot: int
    first: int
    step: int


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive containers of one form in a list.

    Attributes:
        like: the first container, in the old record.
        columns: for each of its leaves, the values in all containers; None if it is the same leaf
            in all of them.
        count: the number of containers.
    """

    like: Value
    columns: tuple[Column | None, ...]
    count: int


def records_at(writer: Writer, items: Sequence[Value], at: int) -> Records | None:
    """Return the containers that begin at an index of a list; None if they are no such containers.

    Args:
        writer: knows the turns of values.
        items: the items of the list in the old record.
        at: the index.
    """
    first = items[at]
    if not parts(first):
        return None
    form = _form(first)
    alike = [first]
    for each in items[at + 1 :]:
        if not parts(each) or _form(each) != form:
            break
        alike.append(each)
    rows = [leaves(each) for each in alike]
    count = min((_going_on(writer, column) for column in zip(*rows, strict=True)), default=0)
    columns = tuple([_column(writer, column) for column in zip(*rows[:count], strict=True)])
    of = [each.loop.turns for each in columns if each is not None]
    return Records(first, columns, count) if of and count >= min(3, *of) else None


def _going_on(writer: Writer, column: Sequence[Value]) -> int:
    """Return for how many containers a leaf is the same, or of successive turns."""
    places = [*_places(writer, column)]
    if places[0] is None:
        return next(
            (n for n, each in enumerate(column) if not _is_same(each, column[0])), len(column)
        )
    if len(places) == 1 or places[1] is None:
        return 1
    loop, begin, slot = places[0]
    step = places[1][1] - begin
    wanted = ((loop, begin + n * step, slot) for n in range(len(places)))
    pairs = enumerate(zip(places, wanted, strict=True))
    return next((n for n, (place, want) in pairs if place != want), len(places))


def _column(writer: Writer, column: Sequence[Value]) -> Column | None:
    first, second = [*_places(writer, column[:2]), None][:2]
    if first is None:
        return None
    return Column(first[0], first[2], first[1], 1 if second is None else second[1] - first[1])


def _places(writer: Writer, column: Sequence[Value]) -> Iterator[Place | None]:
    for each in column:
        yield writer.place_of(each) if isinstance(each, TracedValue) else None


def _is_same(one: Value, other: Value) -> bool:
    if isinstance(one, TracedValue) or isinstance(other, TracedValue):
        return one is other
    return repr(one) == repr(other)


def _form(value: Value) -> str:
    return repr(map_leaves(lambda _: None, value))
