"""The alignment of the calls of two runs, behind the decision that they answer differently."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from difflib import SequenceMatcher

from layergraph.ir.values import leaves
from layergraph.torch2ir.tracing.module_call import Call, ModuleCall, StateRead, TracedValue

Item = Call | ModuleCall
Pair = tuple[Item | None, Item | None]

# Comparing longer sequences takes too long: of these, only the ends are aligned.
_MOST = 4_000_000


def aligned(ones: Sequence[Item], others: Sequence[Item]) -> Iterator[Pair]:
    """Yield the calls of both runs in an order that keeps the order of each.

    Two calls stand side by side if one call can do for both: they call the same. No alignment is
    wrong, but a good one shares more calls.

    Yields:
        Two calls, or one call and None.
    """
    one_keys, other_keys = [*map(_key, ones)], [*map(_key, others)]
    end = 0
    most = min(len(ones), len(others))
    while end < most and one_keys[-1 - end] == other_keys[-1 - end]:
        end += 1
    yield from _middle(
        ones[: len(ones) - end],
        others[: len(others) - end],
        one_keys[: len(ones) - end],
        other_keys[: len(others) - end],
    )
    yield from zip(ones[len(ones) - end :], others[len(others) - end :], strict=True)


def _middle(
    ones: Sequence[Item],
    others: Sequence[Item],
    one_keys: Sequence[Hashable],
    other_keys: Sequence[Hashable],
) -> Iterator[Pair]:
    blocks = [(len(ones), len(others), 0)]
    if len(ones) * len(others) <= _MOST:
        matcher = SequenceMatcher(None, one_keys, other_keys, autojunk=False)
        blocks = [tuple(block) for block in matcher.get_matching_blocks()]
    one = other = 0
    for one_start, other_start, size in blocks:
        yield from ((item, None) for item in ones[one:one_start])
        yield from ((None, item) for item in others[other:other_start])
        one, other = one_start + size, other_start + size
        yield from zip(ones[one_start:one], others[other_start:other], strict=True)


def _key(item: Item) -> Hashable:
    """Return a key that is equal for calls that one call can do for."""
    condition = None if item.when is None else item.when[1]
    if isinstance(item, ModuleCall):
        return "module call", item.path, condition
    key = item.kind, item.target, len(item.args), tuple(item.kwargs), condition
    if item.is_late or item.kind == "mode" or item.target.startswith("layergraph."):
        # Guards, regions and reads of sizes are what they are by their plain arguments.
        return *key, *[_plain(leaf) for leaf in leaves(item.args, item.kwargs)]
    return key


def _plain(leaf: object) -> str:
    return "a value" if isinstance(leaf, TracedValue | StateRead) else repr(leaf)
