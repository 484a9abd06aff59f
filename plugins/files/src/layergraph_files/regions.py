"""Parts of a tensor: where their bytes are in a file that holds all of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

Runs = list[tuple[int, int]]
"""Ranges of indices in one dimension, each with its first index and the one after its last."""

Region = Sequence[Runs]
"""A part of a tensor: for each dimension, the indices that belong to it, in their order."""


def whole(shape: Sequence[int]) -> Region:
    """Return the region that covers a whole tensor.

    Example:
        >>> whole((2, 3))
        [[(0, 2)], [(0, 3)]]
    """
    return [[(0, size)] for size in shape]


def region_shape(region: Region) -> tuple[int, ...]:
    """Return the shape of a part of a tensor.

    Example:
        >>> region_shape([[(0, 1), (4, 6)], [(0, 3)]])
        (3, 3)
    """
    return tuple([sum([stop - start for start, stop in runs]) for runs in region])


def spans(shape: Sequence[int], region: Region, width: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of bytes of a part of a contiguous tensor, in the order of its numbers.

    Adjacent bytes are in one range.

    Args:
        shape: the shape of the whole tensor.
        region: the part.
        width: the bytes of one number.

    Yields:
        The offset of the first byte in the tensor, and the number of bytes.

    Example:
        >>> list(spans((4, 6), [[(1, 3)], [(0, 6)]], 2))
        [(12, 24)]
        >>> list(spans((4, 6), [[(1, 3)], [(3, 6)]], 2))
        [(18, 6), (30, 6)]
    """
    if not math.prod(region_shape(region)):
        return
    # The last dimensions of which the part has all indices form one block of bytes.
    last = len(shape)
    while last and region[last - 1] == [(0, shape[last - 1])]:
        last -= 1
    block = width * math.prod(shape[last:])
    if not last:
        yield 0, block
        return
    *outer, inner = region[:last]
    steps = [block * math.prod(shape[at + 1 : last]) for at in range(last - 1)]
    indices = [itertools.chain(*[range(*run) for run in runs]) for runs in outer]
    for place in itertools.product(*indices):
        start = sum([index * step for index, step in zip(place, steps, strict=True)])
        for first, stop in inner:
            yield start + first * block, (stop - first) * block
