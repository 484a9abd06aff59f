"""Groups: parts of a graph that the picture shows as one box.

A group is a range of the nodes in execution order. A *repeat* holds consecutive repetitions of
equal steps, such as the blocks of a transformer. A *section* holds consecutive nodes of a graph
with more nodes than a picture can show at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

MOST_ITEMS = 40
"""The most boxes on one level, so that the layout takes well under a second in a browser."""

_LONGEST_PERIOD = 12
_FEWEST_REPEATS = 3


@dataclass(slots=True)
class Group:
    """A range of nodes.

    Attributes:
        start: the position of the first node.
        end: the position after the last one.
        times: the number of repetitions; 0 for a section.
        groups: the groups inside, in order.
    """

    start: int
    end: int
    times: int = 0
    groups: list[Group] = field(default_factory=list)


def grouped(steps: Sequence[int], calls: Sequence[bool], reach: Sequence[int]) -> list[Group]:
    """Return the groups of a graph, outermost ones, in order.

    Args:
        steps: a number for the operation of each node, in execution order.
        calls: True for each node that calls or runs an implementation: a repeat has such a node.
        reach: for each node, the position of the last node that reads its value, or its own.

    Example:
        >>> from layergraph_view.groups import grouped
        >>> grouped([0, 1, 1, 1, 2], [False, True, True, True, False], [1, 2, 3, 4, 4])
        [Group(start=1, end=4, times=3, groups=[])]
    """
    groups = _repeats(steps, calls)
    open_values = _crossing(reach)
    for each in groups:
        period = (each.end - each.start) // each.times
        each.groups = _sections(each.start, each.end, [], open_values, period)
    return _sections(0, len(steps), groups, open_values, 1)


def _repeats(steps: Sequence[int], calls: Sequence[bool]) -> list[Group]:
    called = [0, *itertools.accumulate(map(int, calls))]
    periods = [_lengths(steps, period) for period in range(1, _LONGEST_PERIOD + 1)]
    found: list[Group] = []
    start = 0
    while start < len(steps):
        best = (0, 0)
        for period, lengths in enumerate(periods, 1):
            times = lengths[start] // period + 1
            has_call = called[min(start + period, len(steps))] > called[start]
            if times >= _FEWEST_REPEATS and has_call and times * period > best[0]:
                best = times * period, times
        if best[0]:
            found.append(Group(start, start + best[0], best[1]))
        start += best[0] or 1
    return found


def _lengths(steps: Sequence[int], period: int) -> list[int]:
    """Return, for each position, the number of steps that equal the step a period later."""
    lengths = [0] * (len(steps) + 1)
    for place in reversed(range(len(steps) - period)):
        if steps[place] == steps[place + period]:
            lengths[place] = lengths[place + 1] + 1
    return lengths


def _crossing(reach: Sequence[int]) -> list[int]:
    """Return, for each position, the number of values that flow across it."""
    changes = [0] * (len(reach) + 2)
    for place, last in enumerate(reach):
        changes[place + 1] += 1
        changes[last + 1] -= 1
    return list(itertools.accumulate(changes))


_Item = tuple[int, int, Group | None]
"""The start and the end of an item, and its group; None for single nodes."""


def _sections(
    start: int, end: int, groups: list[Group], open_values: Sequence[int], period: int
) -> list[Group]:
    """Put the items of a range into sections until there are few enough.

    Items are the given groups and the nodes outside of them.

    Args:
        start: the position of the first node.
        end: the position after the last one.
        groups: the groups in the range.
        open_values: see :func:`_crossing`.
        period: the number of single nodes in a section is a multiple of this.
    """
    inside = {each.start: each for each in groups}
    items: list[_Item] = []
    place = start
    while place < end:
        group = inside.get(place)
        items.append((place, place + period if group is None else group.end, group))
        place = items[-1][1]
    while len(items) > 1 and sum(map(_boxes, items)) > MOST_ITEMS:
        items = _cut(items, open_values)
    return [group for _, _, group in items if group is not None]


def _boxes(item: _Item) -> int:
    start, end, group = item
    return end - start if group is None else 1


def _cut(items: list[_Item], open_values: Sequence[int]) -> list[_Item]:
    """Cut items into sections of about one size, where few values cross."""
    most = max(MOST_ITEMS // max(map(_boxes, items)), 1)
    size = -(-len(items) // max(2, -(-len(items) // most)))
    slack = size // 5
    sections: list[_Item] = []
    first = 0
    while first < len(items):
        last = min(first + size, len(items))
        if last < len(items):
            choices = range(max(first + 1, last - slack), last + 1)
            last = min(choices, key=lambda each: (open_values[items[each][0]], -each))
        start, end = items[first][0], items[last - 1][1]
        inside = [group for _, _, group in items[first:last] if group is not None]
        sections.append((start, end, Group(start, end, groups=inside)))
        first = last
    return sections
