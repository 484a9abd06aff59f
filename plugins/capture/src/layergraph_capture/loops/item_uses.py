"""The uses of lists among the arguments: in turns and as a whole, or item by item."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from layergraph.ir import Value
from layergraph.torch2ir.tracing.module_call import (
    Call,
    ModuleCall,
    TracedValue,
    calls_in,
    inside_out,
    values_in,
)
from layergraph_capture.loops.written import CONTAINER, GETITEM, LOOP


def are_read_one_by_one(root: ModuleCall) -> bool:
    """Return whether code reads the items of some list by constant indices only.

    Such code, as ``features[0]`` and ``features[1]``, goes on alike for no other number of items,
    and a graph is plainer without the loop that reads them.

    Args:
        root: the call of the model, with loops.
    """
    calls = [*calls_in(root)]
    containers = {call.args[0] for call in calls if call.target == CONTAINER}
    # The loops that read the items, before the code of the model runs.
    reading = {call.value for call in calls if _reads(call, containers)}
    lists: dict[TracedValue, TracedValue] = {}
    used: set[TracedValue] = set()
    for call in calls:
        is_part = call.target == GETITEM and type(call.args[1]) is int
        if is_part and call.args[0] in reading:
            lists[call.value] = call.args[0]
        elif not is_part:
            used |= {lists[each] for each in values_in(call.args, call.kwargs) if each in lists}
    for scope in inside_out(root):
        given = scope.args, scope.kwargs, scope.result
        used |= {lists[each] for each in values_in(*given) if each in lists}
    return bool(reading - used)


def _reads(call: Call, containers: AbstractSet[Value]) -> bool:
    """Return whether a call is a loop that only reads and checks the items of a container."""
    if call.target != LOOP or containers.isdisjoint(values_in(call.args[3])):
        return False
    return all(
        isinstance(item, Call) and item.target.startswith((GETITEM, "layergraph."))
        for item in call.args[0].items
    )
