"""The inputs and outputs of each module call, from the dataflow."""

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
    """The inputs and outputs of one module call.

    Attributes:
        inputs: the values from outside that the call reads or takes as arguments, each with its
            parameter name.
        outputs: the values from inside that the call returns or that code outside reads, in order.
    """

    inputs: dict[TracedValue, str] = field(default_factory=dict)
    outputs: dict[TracedValue, None] = field(default_factory=dict)


def interfaces(scopes: Iterable[ModuleCall]) -> dict[ModuleCall, Interface]:
    """Return the interface of each module call.

    Arguments and results come first, so two calls of one module have the same interface although
    their callers use the results differently.

    Args:
        scopes: a module call and all module calls inside it, inner ones first. Calls around them do
            not affect the result.
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
            # A function may return a value that it reads from outside.
            tracing.read(values_in(scope.result), scope)
        tracing.read(filter(scope.contains, values_in(scope.result)), scope)
    return tracing.found


class _Dataflow:
    """Propagates values from the call that computes them to the calls that read them."""

    def __init__(self, found: dict[ModuleCall, Interface]) -> None:
        self.found = found
        self._escaped: dict[TracedValue, ModuleCall] = {}

    def read(self, values: Iterable[TracedValue], reader: ModuleCall) -> None:
        """Record that a module call reads values."""
        for value in values:
            if value.scope is reader:
                continue
            common = reader
            while not common.contains(value):
                if value in self.found[common].inputs:
                    # The module calls around it know the value already, or get it as an argument.
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
    # Inputs of the model have the scope of the root call, but the root call does not compute them.
    interface.outputs = {
        value: None
        for value in values_in(scope.result)
        if scope.contains(value) and value not in interface.inputs
    }
    return interface
