"""The alignment of the calls of two runs, behind the decision that they answer differently."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from difflib import SequenceMatcher

from layergraph.ir.values import leaves
from layergraph.torch2ir.tracing.module_call import Call, ModuleCall, StateRead, TracedValue

Item = Call | ModuleCall
Pair = tuple[Item | None, Item | None]

# Comparing longer sequences takes too long: of these, only the ends are aligned.
_MOST = 4_000_000


def aligned(ones: Sequence[Item], others: Sequence[Item]) -> Iterator[Pair]:
    """Yield the calls of both runs in an order that keeps the order of each.

    Two calls stand side by side if one call can do for both: they call the same inside of the same
    regions, with the same plain arguments or, between such calls, with others. No alignment is
    wrong, but a good one shares more calls.

    Yields:
        Two calls, or one call and None.
    """
    regions = {**_regions(ones), **_regions(others)}

    def exact(item: Item) -> Hashable:
        return regions[item], _exact(item)

    def similar(item: Item) -> Hashable:
        return regions[item], _similar(item)

    for one, other in _matched(ones, others, exact):
        if len(one) == len(other) == 1 and exact(one[0]) == exact(other[0]):
            yield one[0], other[0]
            continue
        for mine, theirs in _matched(one, other, similar):
            if len(mine) == len(theirs) == 1 and similar(mine[0]) == similar(theirs[0]):
                yield mine[0], theirs[0]
            else:
                yield from ((item, None) for item in mine)
                yield from ((None, item) for item in theirs)


def _matched(
    ones: Sequence[Item], others: Sequence[Item], key: Callable[[Item], Hashable]
) -> Iterator[tuple[Sequence[Item], Sequence[Item]]]:
    """Yield matching calls, one of each run, and what stands between them."""
    one_keys, other_keys = [*map(key, ones)], [*map(key, others)]
    end, most = 0, min(len(ones), len(others))
    while end < most and one_keys[-1 - end] == other_keys[-1 - end]:
        end += 1
    one = other = 0
    for one_start, other_start, size in _blocks(
        one_keys[: len(ones) - end], other_keys[: len(others) - end], end
    ):
        if one < one_start or other < other_start:
            yield ones[one:one_start], others[other:other_start]
        one, other = one_start + size, other_start + size
        for mine, theirs in zip(ones[one_start:one], others[other_start:other], strict=True):
            yield [mine], [theirs]


def _blocks(
    ones: Sequence[Hashable], others: Sequence[Hashable], end: int
) -> list[tuple[int, int, int]]:
    """Return where equal keys stand, and how many; the last block is the common end."""
    blocks: list[tuple[int, int, int]] = []
    if len(ones) * len(others) <= _MOST:
        matcher = SequenceMatcher(None, ones, others, autojunk=False)
        blocks = [(each.a, each.b, each.size) for each in matcher.get_matching_blocks()][:-1]
    return [*blocks, (len(ones), len(others), end)]


def begins_region(call: Call) -> bool:
    """Return whether a call begins a region, such as ``no_grad``."""
    return call.target in _BEGINS and ended_region(call) is None


def ended_region(item: Item) -> TracedValue | None:
    """Return the value of the call that begins the region that a call ends; None if it does not."""
    is_end = isinstance(item, Call) and item.target in _ENDS and len(item.args) == 1
    return item.args[0] if is_end and isinstance(item.args[0], TracedValue) else None


_BEGINS = frozenset({"layergraph.enter_autocast", "layergraph.set_grad_enabled"})
_ENDS = frozenset({"layergraph.exit_autocast", "layergraph.set_grad_enabled"})


def _regions(items: Sequence[Item]) -> dict[Item, Hashable]:
    """Return the regions around each call, as far as they begin or end among the calls."""
    begun = {item.value for item in items if isinstance(item, Call) and begins_region(item)}
    ended = [value for item in items if (value := ended_region(item)) is not None]
    # Regions that began before; the first to end is the innermost.
    around = [(value, "") for value in reversed(ended) if value not in begun]
    regions: dict[Item, Hashable] = {}
    for item in items:
        regions[item] = tuple([said for _, said in around])
        if isinstance(item, Call) and item.value in begun:
            around.append((item.value, repr(_similar(item))))
        around = [each for each in around if each[0] is not ended_region(item)]
    return regions


def _exact(item: Item) -> Hashable:
    """Return a key that is equal for calls of the same with the same plain arguments."""
    if isinstance(item, ModuleCall):
        return _similar(item)
    return _similar(item), *[_plain(leaf) for leaf in leaves(item.args, item.kwargs)]


def _similar(item: Item) -> Hashable:
    """Return a key that is equal for calls that one call can do for."""
    if isinstance(item, ModuleCall):
        return "module call", item.path
    key = item.kind, item.target, len(item.args), *item.kwargs
    if item.is_late or item.kind == "mode" or item.target.startswith("layergraph."):
        # Guards, regions and reads of sizes are what they are by their plain arguments.
        return *key, *[_plain(leaf) for leaf in leaves(item.args, item.kwargs)]
    return key


def _plain(leaf: object) -> str:
    return "a value" if isinstance(leaf, TracedValue | StateRead) else repr(leaf)
