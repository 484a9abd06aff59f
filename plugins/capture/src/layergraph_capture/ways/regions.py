"""The regions of a record, such as ``no_grad``, which may differ between two ways."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from layergraph.torch2ir.tracing.module_call import (
    Call,
    FunctionRead,
    ModuleCall,
    StateRead,
    TracedValue,
)
from layergraph_capture.ways.way import NotMergeableError

Item = Call | ModuleCall

_BOTH = frozenset({"layergraph.select_attention", "layergraph.set_grad_enabled"})
_BEGINS = _BOTH | {"layergraph.enter_autocast"}
_ENDS = _BOTH | {"layergraph.exit_autocast"}


def surrounding(items: Sequence[Item]) -> dict[Item, Hashable]:
    """Return the regions around each call that begin or end among the calls."""
    begun = {item.value for item in items if isinstance(item, Call) and _begins(item)}
    ended = [value for item in items if (value := _ended(item)) is not None]
    # Regions that began before these calls; the first to end is the innermost.
    around: list[tuple[TracedValue, Hashable]] = [
        (value, ()) for value in reversed(ended) if value not in begun
    ]
    regions: dict[Item, Hashable] = {}
    for item in items:
        regions[item] = tuple([said for _, said in around])
        if isinstance(item, Call) and item.value in begun:
            around.append((item.value, item.target))
        around = [each for each in around if each[0] is not _ended(item)]
    return regions


def check_regions(scopes: Iterable[ModuleCall]) -> None:
    """Refuse regions that cross, or that end under another condition than they begin.

    Raises:
        NotMergeableError: there is such a region.
    """
    for scope in scopes:
        calls = [
            item
            for item in scope.items
            if isinstance(item, Call) and item.target in _BEGINS | _ENDS
        ]
        if calls:
            _check(calls)


def _check(calls: Sequence[Call]) -> None:
    named = {value for each in calls if (value := _ended(each)) is not None}
    around: list[Call] = []
    for call in calls:
        begun = _ended(call)
        # The effect of set_grad_enabled() lasts until the next call, or to the end of the block.
        last = around[-1] if around and around[-1].value not in named else None
        if begun is None and (last is None or call.value in named):
            around.append(call)
            continue
        if last is not None:
            if last.when != call.when and (begun is None or call.when is not None):
                raise _crossing()
            if begun is not None or last.args != call.args:
                around.pop()
        is_last = bool(around) and around[-1].value is begun
        if begun is not None and not (is_last and around.pop().when == call.when):
            raise _crossing()


def plain(leaf: object) -> str:
    """Return a text of a plain value; equal for all traced values."""
    if isinstance(leaf, FunctionRead):
        return f"a function {leaf.scope.function}"
    return "a value" if isinstance(leaf, TracedValue | StateRead) else repr(leaf)


def _crossing() -> NotMergeableError:
    return NotMergeableError("a region ends on another way than it begins")


def _begins(call: Call) -> bool:
    return call.target in _BEGINS and _ended(call) is None


def _ended(item: Item) -> TracedValue | None:
    """Return the value of the enter call of the region that a call exits; None if it exits none."""
    if not isinstance(item, Call) or item.target not in _ENDS or len(item.args) != 1:
        return None
    value = item.args[0]
    begun = value.call if isinstance(value, TracedValue) else None
    # The argument may also be a merged value: a choice between two modes.
    return begun.value if begun is not None and begun.target in _BEGINS else None
