"""Helpers for graphs of torch.fx: argument values, and the last readers of values."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import fx

_FRAMES_A_LEVEL = 12


def filled(value: Any, values: Mapping[fx.Node, Any]) -> Any:
    """Return an argument with nodes replaced by their values."""
    if isinstance(value, fx.Node):
        return values[value]
    if isinstance(value, dict):
        return {key: filled(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, values) for each in value]
    if isinstance(value, tuple):
        inside = [filled(each, values) for each in value]
        return type(value)(*inside) if hasattr(value, "_fields") else tuple(inside)
    if isinstance(value, slice):
        return slice(*[filled(each, values) for each in (value.start, value.stop, value.step)])
    return value


def last_read(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """Return, for each node, the nodes whose values it is the last to read.

    Inputs are left out, because the caller holds their values; so are nodes that the output reads.
    """
    last: dict[fx.Node, fx.Node] = {}
    for each in graph.nodes:
        last[each] = each
        for read in each.all_input_nodes:
            last[read] = each
    found: dict[fx.Node, list[fx.Node]] = {}
    for each, reader in last.items():
        if each.op != "placeholder":
            found.setdefault(reader, []).append(each)
    return found


@contextmanager
def deep(levels: int) -> Iterator[None]:
    """Raise Python's recursion limit for a deep model inside a ``with`` block."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + _FRAMES_A_LEVEL * min(levels, 2000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def method_of(name: Any) -> Callable[..., Any]:
    """Return a function that calls a method of its first argument."""

    def method(value: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(value, name)(*args, **kwargs)

    return method
