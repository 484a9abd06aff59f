"""The values that enter and leave each module call, found by dataflow alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.module_call import (
    Call,
    ModuleCall,
    TracedValue,
    values_in,
    with_bodies,
)


@dataclass(slots=True, eq=False)
class Interface:
    """The border of one module call.

    Attributes:
        inputs: the values from outside that are read inside, or were given as arguments, to the
            name of the parameter that they came by.
        outputs: the values from inside that were returned, or are read outside; in order.
    """

    inputs: dict[TracedValue, str] = field(default_factory=dict)
    outputs: dict[TracedValue, None] = field(default_factory=dict)


def interfaces(scopes: Iterable[ModuleCall]) -> dict[ModuleCall, Interface]:
    """The interface of every module call, given those inside before those around them.

    They are all that are inside the last of them, and that one itself. The result does not depend
    on what happens around it.

    What the call was given and what it returned come first: then the same module called twice has
    the same interface, whatever its callers make of it.
    """
    tracing = _Dataflow({scope: _declared(scope) for scope in scopes})
    for scope in tracing.found:
        for item in with_bodies(scope.items):
            if isinstance(item, Call):
                tracing.read(item.reads(), scope)
                for body in item.bodies:
                    tracing.read(values_in(body.result), scope)
        if scope.parent is not None and scope.parent in tracing.found and not scope.function:
            tracing.read(scope.reads(), scope.parent)
        if scope.function:
            # A function may return what it reads from outside.
            tracing.read(values_in(scope.result), scope)
        tracing.read(filter(scope.contains, values_in(scope.result)), scope)
    return tracing.found


class _Dataflow:
    """Carries values from where they come about to where they are read."""

    def __init__(self, found: dict[ModuleCall, Interface]) -> None:
        self.found = found
        self._escaped: dict[TracedValue, ModuleCall] = {}

    def read(self, values: Iterable[TracedValue], reader: ModuleCall) -> None:
        """Note that values are read in a module call."""
        for value in values:
            if value.scope is reader:
                continue
            common = reader
            while not common.contains(value):
                if value in self.found[common].inputs:
                    # Then the module calls around it have been told, or will be by its arguments.
                    break
                self.found[common].inputs[value] = value.wish
                if common.parent is None or common.parent not in self.found:
                    break
                common = common.parent
            else:
                self._escape(value, common)

    def _escape(self, value: TracedValue, to: ModuleCall) -> None:
        inside = self._escaped.get(value, value.scope)
        while inside.depth > to.depth and inside.parent is not None:
            if inside.function:
                raise CaptureError(
                    "a value that a function computed leaves it by another way than by its "
                    f"result: {value.wish!r}; let the function return it"
                )
            self.found[inside].outputs.setdefault(value)
            inside = inside.parent
        self._escaped[value] = inside


def _declared(scope: ModuleCall) -> Interface:
    interface = Interface()
    for index, arg in enumerate(scope.args):
        name = scope.parameters[index] if index < len(scope.parameters) else "input"
        interface.inputs |= {
            value: name for value in values_in(arg) if value not in interface.inputs
        }
    for name, arg in scope.kwargs.items():
        interface.inputs |= {
            value: name for value in values_in(arg) if value not in interface.inputs
        }
    # The model's own inputs count as inside, but where they are returned they do not come from
    # there.
    interface.outputs = {
        value: None
        for value in values_in(scope.result)
        if scope.contains(value) and value not in interface.inputs
    }
    return interface
