"""Recorder of the calls of a run, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from layergraph.ir import Value
from layergraph.torch2ir.tracing.module_call import (
    Call,
    Condition,
    DeferredCall,
    Kind,
    ModuleCall,
    TracedValue,
    wish_of,
)
from layergraph.torch2ir.tracing.other_mode import Replaced


class Recorder:
    """Records the sequence of calls.

    Attributes:
        root: the call of the model.
        scope: the module call that is being recorded.
        position: that of the next value, which grows with each call.
        targets: the kinds and targets of the calls so far; deferred calls do not count.
    """

    def __init__(self) -> None:
        # A module call starts before the position of each value in it.
        self.position = 1
        self.root = self.scope = ModuleCall("", None, 0)
        self.targets: set[tuple[Kind, str]] = set()

    def value(self, wish: str) -> TracedValue:
        """Return a new value at the current position."""
        value = TracedValue(self.position, self.scope, wish)
        self.position += 1
        return value

    def call(
        self,
        kind: Kind,
        target: str,
        args: tuple[Value, ...],
        kwargs: dict[str, Value],
        where: str = "",
        when: Condition | None = None,
        *,
        is_late: bool = False,
    ) -> TracedValue:
        """Add a call to the current module call."""
        value = self.value(wish_of(target))
        value.call = Call(kind, target, args, kwargs, value, where, when, is_late)
        self.scope.items.append(value.call)
        self.targets.add((kind, target))
        return value

    def late(self) -> DeferredCall:
        """Keep a place for later calls in the current module call."""
        late = DeferredCall(self.position, self.scope)
        self.position += 1
        self.scope.late.append((len(self.scope.items), late))
        return late

    def bring_forward(self, place: int, count: int) -> None:
        """Move the last items of the current module call before an earlier item.

        Args:
            place: the number of items that stay before the moved ones.
            count: the index of the first moved item.
        """
        scope = self.scope
        moved = scope.items[count:]
        scope.items[place:] = [*moved, *scope.items[place:count]]
        scope.late = [
            (before + len(moved) if place < before <= count else before, late)
            for before, late in scope.late
        ]

    def remove(self, call: Call) -> None:
        """Remove a call from the current module call; nothing may read its result."""
        scope = self.scope
        place = scope.items.index(call)
        del scope.items[place]
        scope.late = [(before - (before > place), late) for before, late in scope.late]

    def enter(self, path: str, when: Condition | None = None, *, function: str = "") -> ModuleCall:
        """Begin a module call, or the call of a function, inside the current module call."""
        depth = self.scope.depth + 1
        start = self.position
        scope = ModuleCall(path, self.scope, start, depth=depth, when=when, function=function)
        self.position += 1
        self.scope.items.append(scope)
        self.scope = scope
        return scope

    def drop(self, scope: ModuleCall) -> None:
        """Remove a module call that raised an error, and continue in the one around it."""
        if scope.parent is not None and scope in scope.parent.items:
            scope.parent.items.remove(scope)
            self.scope = scope.parent

    def seal(self, diverge: Callable[[], NoReturn]) -> None:
        """Stop recording: call ``diverge`` at the first attempt to record a new call."""

        def refuse(*_: Any, **__: Any) -> NoReturn:
            diverge()

        vars(self).update(dict.fromkeys(("value", "call", "late"), refuse))

    @property
    def is_sealed(self) -> bool:
        """Return whether recording is stopped."""
        return "call" in vars(self)

    def unseal(self) -> None:
        """Resume recording."""
        for name in ("value", "call", "late"):
            vars(self).pop(name, None)

    def begin_again(self, scope: ModuleCall) -> Replaced:
        """Begin to record the other mode of a module call."""
        replaced = Replaced(scope, self.position)
        self.position += 1
        replaced.swap()
        self.scope = scope
        return replaced

    def is_inside(self, value: TracedValue) -> bool:
        """Return whether the current module call has computed a value."""
        return value.position >= self.scope.start

    def leave(self, result: Value) -> None:
        """End the current module call."""
        self.scope.result = result
        self.scope.end = self.position
        if self.scope.parent is not None:
            self.scope = self.scope.parent
