"""The turns of repetitions: where they begin, and where the turns of another loop begin.

Calls before a loop may be those at the end of its turns, and two loops of equal calls may follow
each other. The forms of the calls do not show this; the values that the calls read do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from layergraph.torch2ir.tracing.module_call import Call, TracedValue, values_in
from layergraph_capture.loops.repeats import Item, Repeat, repeats
from layergraph_capture.loops.turns import BEGIN, TURN


def loops_in(items: Sequence[Item], forms: Sequence[int]) -> tuple[Repeat, ...]:
    """Return the repetitions in a sequence whose turns may be those of loops.

    Args:
        items: the sequence.
        forms: the number of each item's form.
    """
    return _split(items, _aligned(items, forms))


def _aligned(items: Sequence[Item], forms: Sequence[int]) -> tuple[Repeat, ...]:
    """Return repetitions, whose turns begin where they take the fewest values of turns before."""
    found: list[Repeat] = []
    for each in reversed(repeats(forms)):
        # A shorter repetition may be the rest of a turn.
        longer = (other for other in found if _length(other) >= _length(each))
        end = next((other.start for other in longer), len(forms))
        shifted = _shifted(items, forms, each, end)
        found = [shifted, *[other for other in found if other.start >= shifted.end]]
    return tuple(found)


def _length(repeat: Repeat) -> int:
    return repeat.end - repeat.start


def _shifted(items: Sequence[Item], forms: Sequence[int], repeat: Repeat, end: int) -> Repeat:
    period = repeat.period
    most = 0
    while most < min(period - 1, end - repeat.end) and (
        forms[repeat.end + most] == forms[repeat.start + most]
    ):
        most += 1
    shift = min(range(most + 1), key=lambda each: _taken(items[repeat.start + each :], period))
    start = repeat.start + shift
    inside = _aligned(items[start : start + period], forms[start : start + period])
    return Repeat(start, period, repeat.turns, inside)


def _taken(items: Sequence[Item], period: int) -> int:
    """Return how many values the second turn takes of the first one."""
    own = {_value(item) for item in items[:period]}
    return sum(each in own for item in items[period : 2 * period] for each in item.reads())


def _split(items: Sequence[Item], found: Sequence[Repeat]) -> tuple[Repeat, ...]:
    """Return repetitions, split where a second loop begins.

    A loop begins where the numbers of turns start again, where a turn reads what the first one has
    read and those between have not, or where a turn does not take what the turn before has
    computed, although that one did. Several loops of equally many turns may be the
    turns of a loop around them.
    """
    return tuple(_pieces(items, found))


def _pieces(items: Sequence[Item], found: Sequence[Repeat]) -> Iterator[Repeat]:
    for each in found:
        turns = [items[each.start + n * each.period :][: each.period] for n in range(each.turns)]
        inside = _split(turns[0], each.inside)
        begins = [0, *_begins(turns), each.turns]
        lengths = {end - begin for begin, end in itertools.pairwise(begins)}
        if len(begins) > 2 and len(lengths) == 1:
            count = lengths.pop()
            inner = (Repeat(0, each.period, count, inside),) if count > 1 else inside
            yield Repeat(each.start, each.period * count, len(begins) - 1, inner)
            continue
        for begin, end in itertools.pairwise(begins):
            if end - begin > 1:
                yield Repeat(each.start + begin * each.period, each.period, end - begin, inside)


def _begins(turns: Sequence[Sequence[Item]]) -> Iterator[int]:
    """Yield the turns that begin a further loop."""
    own: dict[object, int] = {
        _value(item): turn for turn, items in enumerate(turns) for item in items
    }
    last: tuple[int, list[bool]] | None = None
    first: list[TracedValue] = []
    before: list[TracedValue] = []
    for turn, items in enumerate(turns):
        number = next((each.args[0] for each in items if _is_numbered(each)), 0)
        takes = [
            any(own.get(each) == turn - 1 for each in values_in(given))
            for item in items
            for given in (*item.args, *item.kwargs.values())
        ]
        reads = [each for item in items for each in item.reads()]
        if last is None:
            first = reads
        else:
            stops = any(was and not now for was, now in zip(last[1], takes, strict=False))
            if number < last[0] or stops or (reads == first != before):
                first = reads
                yield turn
        last, before = (number, takes), reads


def _value(item: Item) -> object:
    return item.value if isinstance(item, Call) else item


def _is_numbered(item: Item) -> bool:
    """Return whether an item has the number of a turn, and not that of all turns."""
    return isinstance(item, Call) and item.target in (BEGIN, TURN) and item.args[1] != -1
