"""Alignment of two sequences, where items were added and removed.

``difflib`` takes quadratic time or more if many items are equal, as additions and activations are
in a graph. The time of this alignment is in proportion to the number of items.
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

# In a gap without unique items, the longest common subsequence is computed if its table has at most
# this many cells.
_CELLS = 100_000
# The number of times that the gaps between anchors are searched for more anchors.
_ROUNDS = 20


def align(one: Sequence[Hashable], other: Sequence[Hashable]) -> Pairs:
    """Align two sequences by equal items.

    Args:
        one: the first sequence.
        other: the second sequence.

    Returns:
        Pairs of positions whose items are equal; both positions rise from pair to pair. An item
        that is in no pair was added or removed.
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
    """Align two sequences by several keys, the strictest first.

    Args:
        one: the first sequence.
        other: the second sequence.
        keys: functions that return what to compare two items by. Each key aligns the items that the
            keys before it left between two pairs.
        may_replace: returns whether the second item may have replaced the first. It decides about
            items between two pairs if both sequences have equally many of them there.

    Returns:
        Pairs of positions, as for :func:`align`.
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
    """Return the gaps between pairs in which both sequences have items."""
    gaps = []
    for before, after in itertools.pairwise([(-1, -1), *pairs, (end, stop)]):
        if after[0] - before[0] > 1 and after[1] - before[1] > 1:
            gaps.append((before[0] + 1, after[0], before[1] + 1, after[1]))
    return gaps


def _trimmed(one: Sequence[Hashable], other: Sequence[Hashable], gap: _Gap, pairs: Pairs) -> _Gap:
    """Add the common start and end of a gap to the pairs, and return the rest of the gap."""
    start, end, begin, stop = gap
    while start < end and begin < stop and one[start] == other[begin]:
        pairs.append((start, begin))
        start, begin = start + 1, begin + 1
    while start < end and begin < stop and one[end - 1] == other[stop - 1]:
        end, stop = end - 1, stop - 1
        pairs.append((end, stop))
    return start, end, begin, stop


def _anchors(one: Sequence[Hashable], other: Sequence[Hashable], gap: _Gap) -> Pairs:
    """Return the most pairs of items that occur once on either side, with rising positions."""
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
    """Return the longest subsequence of pairs whose second positions rise, as the first ones do."""
    ends: list[int] = []  # for each length of a subsequence, its lowest last position
    last: list[int] = []  # the number of the pair with that position
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
    # The length of the longest common subsequence from each pair of positions on.
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
