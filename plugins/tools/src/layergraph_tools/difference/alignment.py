"""Which items of one sequence are those of another, where some were added and removed.

``difflib`` would take quadratic time, and more, where many items are equal, as additions and
activations are in a graph. This takes time in proportion to the number of items.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")
Pairs = list[tuple[int, int]]
_Gap = tuple[int, int, int, int]  # start and end in one, start and end in the other

# Between items that are there but once, the best alignment of up to so many times so many.
_CELLS = 100_000
# How often what is between anchors is looked through for more of them.
_ROUNDS = 20


def align(one: Sequence[Hashable], other: Sequence[Hashable]) -> Pairs:
    """The positions of items that are the same in both, rising in both.

    Args:
        one: the one sequence.
        other: the other.

    Returns:
        Pairs of positions whose items are equal. What is in no pair was added or removed.
    """
    pairs: Pairs = []
    gaps = [(0, len(one), 0, len(other))]
    for turn in range(_ROUNDS + 1):
        wider, gaps = gaps, []
        for gap in wider:
            start, end, begin, stop = _trimmed(one, other, gap, pairs)
            if start == end or begin == stop:
                continue
            anchors = _anchors(one, other, (start, end, begin, stop)) if turn < _ROUNDS else []
            if not anchors:
                pairs += _without_anchors(one, other, (start, end, begin, stop))
                continue
            pairs += anchors
            inside = [(index - start, position - begin) for index, position in anchors]
            gaps += [
                (start + first, start + last, begin + top, begin + bottom)
                for first, last, top, bottom in _gaps(inside, end - start, stop - begin)
            ]
    return sorted(pairs)


def align_by(
    one: Sequence[_Item],
    other: Sequence[_Item],
    keys: Sequence[Callable[[_Item], Hashable]],
    may_replace: Callable[[_Item, _Item], bool],
) -> Pairs:
    """The positions of items that are taken for the same.

    Args:
        one: the one sequence.
        other: the other.
        keys: what items are compared by, the closest first. What one leaves over between two
            pairs is compared by the next.
        may_replace: whether of two items the one may have taken the other's place: where, between
            two pairs, as many are gone as there are new ones.
    """
    pairs: Pairs = []
    for key in keys:
        here, there = [key(each) for each in one], [key(each) for each in other]
        found = list(pairs)
        for start, end, begin, stop in _gaps(pairs, len(one), len(other)):
            inside = align(here[start:end], there[begin:stop])
            found += [(start + index, begin + position) for index, position in inside]
        pairs = sorted(found)
    replaced: Pairs = []
    for start, end, begin, stop in _gaps(pairs, len(one), len(other)):
        if end - start == stop - begin:
            between = zip(range(start, end), range(begin, stop), strict=True)
            replaced += [(i, j) for i, j in between if may_replace(one[i], other[j])]
    return sorted([*pairs, *replaced])


def _gaps(pairs: Pairs, end: int, stop: int) -> list[_Gap]:
    """What is between pairs, where there is something on both sides."""
    gaps = []
    for before, after in itertools.pairwise([(-1, -1), *pairs, (end, stop)]):
        if after[0] - before[0] > 1 and after[1] - before[1] > 1:
            gaps.append((before[0] + 1, after[0], before[1] + 1, after[1]))
    return gaps


def _trimmed(one: Sequence[Hashable], other: Sequence[Hashable], gap: _Gap, pairs: Pairs) -> _Gap:
    """The gap, less what both begin and end with, which is added to the pairs."""
    start, end, begin, stop = gap
    while start < end and begin < stop and one[start] == other[begin]:
        pairs.append((start, begin))
        start, begin = start + 1, begin + 1
    while start < end and begin < stop and one[end - 1] == other[stop - 1]:
        end, stop = end - 1, stop - 1
        pairs.append((end, stop))
    return start, end, begin, stop


def _anchors(one: Sequence[Hashable], other: Sequence[Hashable], gap: _Gap) -> Pairs:
    """Most of the items that are there once on either side, so that both positions rise."""
    start, end, begin, stop = gap
    counts = Counter(one[start:end])
    counts_there = Counter(other[begin:stop])
    there = {other[index]: index for index in range(begin, stop)}
    both = [
        (index, there[one[index]])
        for index in range(start, end)
        if counts[one[index]] == 1 and counts_there[one[index]] == 1
    ]
    return _longest_rising(both)


def _longest_rising(pairs: Pairs) -> Pairs:
    """The longest choice of pairs, given by rising first positions, whose second ones rise too."""
    ends: list[int] = []  # of the choices of each length, the lowest second position
    last: list[int] = []  # which pair that is
    before: list[int] = []
    for number, (_, position) in enumerate(pairs):
        length = bisect_left(ends, position)
        before.append(last[length - 1] if length else -1)
        ends[length : length + 1] = [position]
        last[length : length + 1] = [number]
    chosen = []
    number = last[-1] if last else -1
    while number >= 0:
        chosen.append(pairs[number])
        number = before[number]
    return chosen[::-1]


def _without_anchors(one: Sequence[Hashable], other: Sequence[Hashable], gap: _Gap) -> Pairs:
    start, end, begin, stop = gap
    if (end - start) * (stop - begin) > _CELLS:
        both = zip(range(start, end), range(begin, stop), strict=False)
        return [(index, there) for index, there in both if one[index] == other[there]]
    # How many pairs there can be from each position of either side on.
    best = [[0] * (stop - begin + 1) for _ in range(end - start + 1)]
    for row in reversed(range(end - start)):
        for column in reversed(range(stop - begin)):
            if one[start + row] == other[begin + column]:
                best[row][column] = best[row + 1][column + 1] + 1
            else:
                best[row][column] = max(best[row + 1][column], best[row][column + 1])
    pairs = []
    row = column = 0
    while row < end - start and column < stop - begin:
        if one[start + row] == other[begin + column]:
            pairs.append((start + row, begin + column))
            row, column = row + 1, column + 1
        elif best[row + 1][column] >= best[row][column + 1]:
            row += 1
        else:
            column += 1
    return pairs
