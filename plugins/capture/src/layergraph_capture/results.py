"""The objects that a run changes and returns, as values of its graph."""

from __future__ import annotations

from typing import Any

from layergraph.ir import Value
from layergraph.torch2ir.results import opened
from layergraph.torch2ir.tracing.module_call import TracedValue
from layergraph.torch2ir.tracing.tracer import Tracer
from layergraph_capture.binding import Given
from layergraph_capture.replaying.value_match import matches
from layergraph_capture.trackers.objects import Objects


class Results:
    """Writes down how the objects of the caller change, and how new ones are made.

    Args:
        tracer: the tracer of the run.
        objects: the classes of these objects.
    """

    def __init__(self, tracer: Tracer, objects: Objects) -> None:
        self._tracer = tracer
        self._objects = objects
        # The objects are kept, so that no other one gets the id of one of them.
        self._values: dict[int, tuple[Any, TracedValue]] = {}

    def change(self, given: Given) -> bool:
        """Give the caller's objects the parts that the model's copies have now.

        Returns:
            Whether one of them has others.

        Args:
            given: what the model got.
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

    def value_of(self, value: Any) -> TracedValue | None:
        """Return the value that an object is in the graph; None if the graph cannot make it."""
        known = self._values.get(id(value))
        if known is not None:
            return known[1]
        if not self._objects.is_made(value):
            return None
        return self._made(value, self._parts(value))

    def literal(self, value: Any) -> Any:
        """Return the plain form of a value with objects in it."""
        return self._tracer.to_literal(opened(value, self.value_of))

    def _parts(self, value: Any) -> Any:
        return self._tracer.unrecorded(self._objects.parts, (value,), {})

    def _made(self, value: Any, parts: Any, *into: Value) -> TracedValue:
        row = self._objects.row(value)
        if row is None:
            raise TypeError(f"{type(value).__name__} has no row")
        name = self._objects.name(row.unflatten)
        args = (self.literal(parts), *into)
        made = self._tracer.recorder.call("function", name, args, {})
        self._values[id(value)] = value, made
        return made
