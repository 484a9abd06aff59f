"""The other mode of the merged calls of two runs."""

from __future__ import annotations

from layergraph.ir import Value
from layergraph.torch2ir.tracing.module_call import Call, Trace, TracedValue, values_in
from layergraph.torch2ir.tracing.other_mode import Changed, OtherMode, mode_calls
from layergraph_capture.ways.selection import Selection
from layergraph_capture.ways.way import NotMergeableError, Way


class MergedModes:
    """Collects the merged calls that have other arguments in the other mode.

    The other mode is unknown if a module makes other calls there, because the interface of its
    calls differs between ways, or if a call reads other values there. Then the capturer runs the
    model in the other mode.

    Args:
        ways: the two runs.
        selection: selects the arguments of merged calls.
    """

    def __init__(self, ways: tuple[Way, Way], selection: Selection) -> None:
        self._ways = ways
        self._selection = selection
        others = [each for way in ways if (each := other_mode_of(way.trace)) is not None]
        self._is_known = len(others) == len(ways) and not any(each.replaced for each in others)
        self._readings = {reading for each in others for reading in each.readings}
        self._changed = {
            changed.call: changed
            for each in (others if self._is_known else ())
            for changed in each.changed
        }
        self._merged: list[Changed] = []

    @property
    def found(self) -> OtherMode | None:
        """The differences of the other mode; None if they are unknown."""
        return OtherMode(self._readings, self._merged, []) if self._is_known else None

    def both(self, merged: TracedValue, one: Call, other: Call) -> None:
        """Note the other mode of a call of both runs."""
        if one in self._changed or other in self._changed:
            try:
                there = self._selection.selected(self._given(one), self._given(other))
            except NotMergeableError:
                self._is_known = False
            else:
                self._note(merged.call, there)

    def one(self, merged: TracedValue, way: Way, item: Call) -> None:
        """Note the other mode of a call of one run."""
        if item in self._changed:
            self._note(merged.call, way.read(self._given(item)))

    def keep(self, *items: object) -> None:
        """Require that calls have the same arguments in both modes."""
        self._is_known &= self._changed.keys().isdisjoint(items)

    def _given(self, item: Call) -> tuple[Value, Value]:
        """Return the arguments of a call in the other mode."""
        there = self._changed.get(item, item)
        return there.args, there.kwargs

    def _note(self, call: Call | None, there: Value) -> None:
        args, kwargs = there if isinstance(there, tuple) else (None, None)
        # The inputs of module calls follow from the values that the own mode reads.
        if (
            call is not None
            and isinstance(args, tuple)
            and isinstance(kwargs, dict)
            and {*values_in(args, kwargs)} <= {*values_in(call.args, call.kwargs)}
        ):
            self._merged.append(Changed(call, args, kwargs))
        else:
            self._is_known = False


def other_mode_of(trace: Trace) -> OtherMode | None:
    """Return the other mode of a run; None if it is unknown."""
    if trace.other is None and not mode_calls(trace.scopes):
        # Code that reads no mode makes the same calls in both.
        return OtherMode(set(), [], [])
    return trace.other
