"""The values from which a value is computed."""

from __future__ import annotations

from collections.abc import Container, Iterator

from layergraph.ir import Value
from layergraph.ir.values import leaves
from layergraph.torch2ir.tracing.module_call import StateRead, TracedValue


def origins(value: Value, known: Container[TracedValue] = ()) -> Iterator[TracedValue | StateRead]:
    """Yield the values in a value and all that they are computed from, each traced value once.

    Args:
        value: the value.
        known: traced values to leave out, with what they are computed from.
    """
    pending = leaves(value)
    seen: set[TracedValue] = set()
    while pending:
        leaf = pending.pop()
        if isinstance(leaf, StateRead):
            yield leaf
        elif isinstance(leaf, TracedValue) and leaf not in seen and leaf not in known:
            seen.add(leaf)
            yield leaf
            if leaf.call is not None:
                pending += leaves(leaf.call.args, leaf.call.kwargs)
