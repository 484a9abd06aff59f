"""Objects that a run changes or returns, as values of the graph."""

from __future__ import annotations

from typing import Any

from layergraph.ir import Value
from layergraph.torch2ir.results import opened
from layergraph.torch2ir.tracing.module_call import TracedValue
from layergraph.torch2ir.tracing.tracer import Tracer
from layergraph_capture.arguments import Arguments
from layergraph_capture.binding import Given
from layergraph_capture.compared_objects import compares_objects
from layergraph_capture.replaying.value_match import matches
from layergraph_capture.trackers.objects import Objects


class Results:
    """Records the changes of the caller's objects, and the construction of new ones.

    Args:
        tracer: the tracer of the run.
        objects: the classes of these objects.
    """

    def __init__(self, tracer: Tracer, objects: Objects) -> None:
        self._tracer = tracer
        self._objects = objects
        # Each entry keeps its object alive, so that ids stay unique.
        self._values: dict[int, tuple[Any, TracedValue]] = {}

    def returned(self, result: Any, arguments: Arguments) -> Any:
        """Record the changes of the caller's objects and containers; return the result.

        Args:
            result: the result of the model.
            arguments: the arguments of the call.

        Returns:
            The result, with graph values in place of objects.
        """
        tracer = self._tracer
        is_changed = self._change(arguments.given)
        changes = list(arguments.changes())
        place = compares_objects(tracer.module_index.reach.codes.values())
        if is_changed or changes or place:
            reason = f"{place} asks whether two are one" if place else "the model changes some"
            distinct = arguments.distinct(reason, with_tensors=bool(place))
            if len(distinct) > 1:
                args = (distinct, reason)
                tracer.recorder.call("function", "layergraph.assume_distinct", args, {})
        for name, (part, key, item) in changes:
            rest = () if name == "operator.delitem" else (self._literal(item),)
            tracer.recorder.call("function", name, (part, tracer.to_literal(key), *rest), {})
        return opened(result, self._value_of)

    def _change(self, given: Given) -> bool:
        """Record the calls that set the new parts on the caller's objects.

        Returns:
            Whether an object has new parts.

        Args:
            given: the arguments, as the model received them.
        """
        for value, node in given.named:
            self._values[id(value)] = value, node
        for each in given.objects:
            self._values[id(each.value)] = each.value, each.node
        is_changed = False
        for each in given.objects:
            now = self._parts(each.value)
            if not matches(now, each.before):
                self._made(each.value, now, each.node)
                is_changed = True
        return is_changed

    def _value_of(self, value: Any) -> TracedValue | None:
        """Return the graph value of an object; None if the graph cannot make it."""
        known = self._values.get(id(value))
        if known is not None:
            return known[1]
        if not self._objects.is_made(value):
            return None
        return self._made(value, self._parts(value))

    def _literal(self, value: Any) -> Any:
        """Return a value that contains objects as a literal."""
        return Tracer.returned(self._tracer, opened(value, self._value_of))

    def _parts(self, value: Any) -> Any:
        return self._tracer.unrecorded(self._objects.parts, (value,), {})

    def _made(self, value: Any, parts: Any, *into: Value) -> TracedValue:
        row = self._objects.row(value)
        if row is None:
            raise TypeError(f"{type(value).__name__} has no row")
        name = self._objects.name(row.unflatten)
        args = (self._literal(parts), *into)
        made = self._tracer.recorder.call("function", name, args, {})
        self._values[id(value)] = value, made
        return made
