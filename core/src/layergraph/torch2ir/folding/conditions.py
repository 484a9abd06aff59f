"""Conditions of calls after the conditional call around them is inlined or removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from layergraph.control_flow.choices import choose
from layergraph.ir.values import Value
from layergraph.torch2ir.tracing.module_call import (
    Call,
    Condition,
    ModuleCall,
    TracedValue,
)

CHOOSE = f"layergraph.{choose.__name__}"


def conditional(
    items: Sequence[Call | ModuleCall], when: Condition
) -> Iterator[tuple[Call | ModuleCall, Call | ModuleCall]]:
    """Yield copies of calls with one more condition.

    A call that has a condition needs both. A ``choose`` node combines them: its value is None if
    the outer condition does not hold.

    Yields:
        Each call, and its copy. For a ``choose`` node, the node twice.
    """
    both: dict[TracedValue, TracedValue] = {}
    for item in items:
        if isinstance(item, ModuleCall) and item.function:
            # A body runs under the condition of the call that repeats it.
            yield item, item
        elif item.when is None:
            yield item, replace(item, when=when)
        else:
            inner, expected = item.when
            if inner not in both:
                call = call_of_choose((inner, True, False), inner, when)
                both[inner] = call.value
                yield call, call
            yield item, replace(item, when=(both[inner], expected))


def call_of_choose(
    args: tuple[Value, ...], like: TracedValue, when: Condition | None = None
) -> Call:
    """Return a ``choose`` call, which selects one of two values.

    Args:
        args: the condition and the two values.
        like: a value with the same position and module call.
        when: the condition under which the call is made.
    """
    value = TracedValue(like.position, like.scope, choose.__name__)
    value.call = Call("function", CHOOSE, args, {}, value, when=when)
    return value.call
