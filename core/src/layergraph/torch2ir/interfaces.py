"""What goes into each module call and what comes out of it: by dataflow alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from layergraph.ir import Value as Plain
from layergraph.ir.values import leaves
from layergraph.torch2ir.calls import Call, Scope, Value, scopes


@dataclass(slots=True, eq=False)
class Interface:
    """The border of one module call.

    Attributes:
        inputs: the values from outside that are read inside, or were given as arguments, to the
            name of the parameter that they came by.
        outputs: the values from inside that were returned, or are read outside; in order.
    """

    inputs: dict[Value, str] = field(default_factory=dict)
    outputs: dict[Value, None] = field(default_factory=dict)


def interfaces(root: Scope) -> dict[Scope, Interface]:
    """The interface of every module call.

    What the call was given and what it returned come first: then the same module called twice has
    the same interface, whatever its callers make of it.
    """
    found = {scope: _declared(scope) for scope in scopes(root)}
    escaped: dict[Value, Scope] = {}

    def use(plain: Plain, reader: Scope) -> None:
        for value in leaves(plain):
            if not isinstance(value, Value):
                continue
            common = reader
            while not common.contains(value) and common.parent is not None:
                found[common].inputs.setdefault(value, value.wish)
                common = common.parent
            inside = escaped.get(value, value.scope)
            while inside.depth > common.depth and inside.parent is not None:
                found[inside].outputs.setdefault(value)
                inside = inside.parent
            escaped[value] = inside

    for scope in found:
        for item in scope.items:
            if isinstance(item, Call):
                use(item.args, scope)
                use(item.kwargs, scope)
        if scope.parent is not None:
            use(scope.args, scope.parent)
            use(scope.kwargs, scope.parent)
        for value in leaves(scope.result):
            if isinstance(value, Value) and scope.contains(value):
                use(value, scope)
    return found


def _declared(scope: Scope) -> Interface:
    interface = Interface()
    for index, arg in enumerate(scope.args):
        name = scope.parameters[index] if index < len(scope.parameters) else "input"
        _declare(interface, arg, name)
    for name, arg in scope.kwargs.items():
        _declare(interface, arg, name)
    for value in leaves(scope.result):
        if isinstance(value, Value) and scope.contains(value):
            # The model's own inputs are returned as they are; they do not come from inside.
            if value not in interface.inputs:
                interface.outputs.setdefault(value)
    return interface


def _declare(interface: Interface, arg: Plain, name: str) -> None:
    for value in leaves(arg):
        if isinstance(value, Value):
            interface.inputs.setdefault(value, name)
