"""Guards of the sizes on which loops depend."""

from __future__ import annotations

from layergraph.torch2ir.tracing.module_call import Call, TracedValue, wish_of
from layergraph_capture.loops.repeats import Item
from layergraph_capture.loops.verify import OtherRunError
from layergraph_capture.loops.written import ASSUME, Rolled


def guard_size(
    result: Rolled, value: TracedValue, target: str, operand: int, expected: object
) -> None:
    """Guard a size on which loops depend.

    Args:
        result: the record with the loops.
        value: the size.
        target: the name of the operator that compares it.
        operand: the number that it is compared with.
        expected: the result of the comparison.

    Raises:
        OtherRunError: the module call that computes the size does not hold it.
    """
    scope = value.scope
    found = _place(scope.items, value)
    if found is None:
        raise OtherRunError("the size of a loop is not in the module call where it came about")
    items, at = found
    asked = TracedValue(scope.start, scope, target)
    asked.call = Call("function", f"operator.{target}", (value, operand), {}, asked)
    guard = TracedValue(scope.start, scope, wish_of(ASSUME))
    where = "a loop that capture has seen with such sizes only"
    guard.call = Call("function", ASSUME, (asked, expected, where), {}, guard)
    result.glue |= {asked.call, guard.call}
    items[at + 1 : at + 1] = [asked.call, guard.call]


def _place(items: list[Item], value: TracedValue) -> tuple[list[Item], int] | None:
    """Return the items, perhaps of a body, and the index of the call that returns a value."""
    for index, item in enumerate(items):
        if isinstance(item, Call):
            if item.value is value:
                return items, index
            inside = (_place(body.items, value) for body in item.bodies)
            found = next(filter(None, inside), None)
            if found is not None:
                return found
    return None
