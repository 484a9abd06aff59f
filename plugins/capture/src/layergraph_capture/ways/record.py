"""The record that two runs are merged into."""

from __future__ import annotations

from layergraph.ir import Value
from layergraph.torch2ir.tracing.module_call import (
    Call,
    Condition,
    Kind,
    ModuleCall,
    TracedValue,
    wish_of,
)


class Record:
    """Writes down calls, one after the other.

    Attributes:
        root: the call of the model.
        scope: the module call that is being written.
        position: the position of the next value.
    """

    def __init__(self) -> None:
        self.root = self.scope = ModuleCall("", None, 0)
        self.position = 0

    def place(self) -> TracedValue:
        """Return a value that comes about here."""
        self.position += 1
        return TracedValue(self.position - 1, self.scope, "")

    def call(
        self,
        kind: Kind,
        target: str,
        args: tuple[Value, ...],
        kwargs: dict[str, Value] | None = None,
        where: str = "",
        when: Condition | None = None,
    ) -> Call:
        """Add a call; the arguments are those of :class:`Call`."""
        value = self.place()
        value.wish = wish_of(target)
        value.call = Call(kind, target, args, kwargs or {}, value, where, when)
        self.scope.items.append(value.call)
        return value.call

    def enter(self, like: ModuleCall, when: Condition | None) -> ModuleCall:
        """Begin a call of the module of another module call."""
        scope = ModuleCall(
            like.path,
            self.scope,
            self.position,
            depth=self.scope.depth + 1,
            parameters=like.parameters,
            when=when,
        )
        self.scope.items.append(scope)
        self.scope = scope
        return scope

    def leave(self) -> None:
        """End the module call."""
        self.scope.end = self.position
        self.scope = self.scope.parent or self.scope
