"""The alignment of the calls of two runs after the decision that they answer differently."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from difflib import SequenceMatcher

from layergraph.ir.values import leaves
from layergraph.torch2ir.tracing.module_call import ModuleCall
from layergraph_capture.ways.regions import Item, plain, surrounding

Pair = tuple[Item | None, Item | None]

# Aligning longer sequences takes too long; of these, only the ends are aligned.
_MOST = 4_000_000


def aligned(ones: Sequence[Item], others: Sequence[Item]) -> Iterator[Pair]:
    """Yield the calls of both runs in an order that keeps the order of each.

    Two calls form a pair if one merged call can replace both: they have the same target in the same
    regions. Calls with equal plain arguments are paired first, then calls between these. Every
    alignment is correct; a better one shares more calls.

    Yields:
        Two calls, or one call and None.
    """
    regions = {**surrounding(ones), **surrounding(others)}

    def exact(item: Item) -> Hashable:
        return regions[item], _exact(item)

    def similar(item: Item) -> Hashable:
        return regions[item], _similar(item)

    for one, other, is_match in _matched(ones, others, exact):
        if is_match:
            yield one[0], other[0]
            continue
        for mine, theirs, is_similar in _matched(one, other, similar):
            if is_similar:
                yield mine[0], theirs[0]
            else:
                yield from ((item, None) for item in mine)
                yield from ((None, item) for item in theirs)


def _matched(
    ones: Sequence[Item], others: Sequence[Item], key: Callable[[Item], Hashable]
) -> Iterator[tuple[Sequence[Item], Sequence[Item], bool]]:
    """Yield runs of matching calls, and the calls between them.

    Yields:
        Calls of the one run, calls of the other, and True if they match.
    """
    one_keys, other_keys = [*map(key, ones)], [*map(key, others)]
    end, most = 0, min(len(ones), len(others))
    while end < most and one_keys[-1 - end] == other_keys[-1 - end]:
        end += 1
    one = other = 0
    for one_start, other_start, size in _blocks(
        one_keys[: len(ones) - end], other_keys[: len(others) - end], end
    ):
        if one < one_start or other < other_start:
            yield ones[one:one_start], others[other:other_start], False
        one, other = one_start + size, other_start + size
        for mine, theirs in zip(ones[one_start:one], others[other_start:other], strict=True):
            yield [mine], [theirs], True


def _blocks(
    ones: Sequence[Hashable], others: Sequence[Hashable], end: int
) -> list[tuple[int, int, int]]:
    """Return the blocks of equal keys: both starts and the length; the common end comes last."""
    blocks: list[tuple[int, int, int]] = []
    if ones and others and len(ones) * len(others) <= _MOST:
        matcher = SequenceMatcher(None, ones, others, autojunk=False)
        blocks = [(each.a, each.b, each.size) for each in matcher.get_matching_blocks()][:-1]
    return [*blocks, (len(ones), len(others), end)]


def _exact(item: Item) -> Hashable:
    """Return a key that is equal for calls with the same target and the same plain arguments."""
    if isinstance(item, ModuleCall):
        return _similar(item)
    return _similar(item), *[plain(leaf) for leaf in leaves(*item.args, *item.kwargs.values())]


def _similar(item: Item) -> Hashable:
    """Return a key that is equal for calls that one merged call can replace."""
    if isinstance(item, ModuleCall):
        return "module call", item.path, item.function, len(item.args) if item.function else 0
    key = item.kind, item.target, len(item.args), *item.kwargs
    if item.is_late or item.kind == "mode" or item.target.startswith("layergraph.assume"):
        # For guards and reads of sizes, the plain arguments must be equal, too.
        return *key, *[plain(leaf) for leaf in leaves(*item.args, *item.kwargs.values())]
    return key
