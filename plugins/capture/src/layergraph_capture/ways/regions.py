"""Checking that each region of a merged record begins and ends on the same ways."""

from __future__ import annotations

from layergraph.regions import REGIONS
from layergraph.torch2ir.tracing.module_call import Call, Trace, TracedValue
from layergraph_capture.ways.way import NotMergeableError

_REGIONS = frozenset(f"layergraph.{each.__name__}" for each in REGIONS)


def check_regions(record: Trace) -> None:
    """Raise unless each region begins and ends under the same condition.

    Of the regions that only some ways have, one call has to name the other: a graph cannot tell
    otherwise which of them belong together.

    Raises:
        NotMergeableError: a region does not.
    """
    calls = [
        item
        for scope in record.scopes
        for item in scope.items
        if isinstance(item, Call) and item.target in _REGIONS
    ]
    begins = {call.value: call for call in calls}
    paired: set[TracedValue] = set()
    for call in calls:
        begun = call.args[0] if call.args else None
        if isinstance(begun, TracedValue):
            if begun not in begins or begins[begun].when != call.when:
                raise NotMergeableError("a region begins or ends on one of the ways only")
            paired |= {begun, call.value}
    if any(call.when is not None and call.value not in paired for call in calls):
        raise NotMergeableError("the mode of gradients changes on one of the ways only")
