"""The calls of a run that differ in the other mode of the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias, TypeGuard

from layergraph.ir import Value
from layergraph.torch2ir.tracing.module_call import (
    Call,
    DeferredCall,
    Fact,
    ModuleCall,
    inside_out,
    with_bodies,
)

ModeReading: TypeAlias = tuple[str, str]
"""The path of a module whose mode is read, and that of the module whose code reads it."""


def is_mode_call(item: Call | ModuleCall) -> TypeGuard[Call]:
    """Return whether an item of a module call only says that code asked for a mode."""
    return isinstance(item, Call) and item.kind == "mode"


def mode_calls(scopes: Iterable[ModuleCall]) -> list[Call]:
    """The calls in module calls that read a module's mode."""
    return [item for scope in scopes for item in with_bodies(scope.items) if is_mode_call(item)]


def mode_readings(calls: Iterable[Call]) -> set[ModeReading]:
    """Return what calls read: whose mode, and by whose code."""
    return {(call.target, call.value.scope.path) for call in calls}


def take_mode_calls(scopes: Iterable[ModuleCall]) -> list[Call]:
    """The same; they are taken out."""
    taken = mode_calls(scopes)
    for scope in {call.value.scope for call in taken}:
        scope.items = [item for item in scope.items if not is_mode_call(item)]
    return taken


@dataclass(slots=True)
class Changed:
    """A call that is made with other arguments in the other mode.

    Attributes:
        call: the call.
        args: what it is given there.
        kwargs: likewise, by name.
    """

    call: Call
    args: tuple[Value, ...]
    kwargs: dict[str, Value]

    def swap(self) -> None:
        """Make the call that of the other mode, or that of this one again."""
        self.call.args, self.args = self.args, self.call.args
        self.call.kwargs, self.kwargs = self.kwargs, self.call.kwargs


@dataclass(slots=True)
class Replaced:
    """A module call in which the other mode does something else.

    It is given the same and gives the same values.

    Attributes:
        scope: the module call.
        start: the first position inside it, there.
        end: the first position after.
        items: what it does there.
        late: likewise, places that were kept.
        known: what its code asked there.
        result: what it returns there.
    """

    scope: ModuleCall
    start: int
    end: int = -1
    result: Value = None
    items: list[Call | ModuleCall] = field(default_factory=list)
    late: list[tuple[int, DeferredCall]] = field(default_factory=list)
    known: set[Fact] = field(default_factory=set)

    def swap(self) -> None:
        """Make the module call that of the other mode, or that of this one again."""
        for name in ("start", "end", "result", "items", "late", "known"):
            mine, own = getattr(self, name), getattr(self.scope, name)
            setattr(self, name, own)
            setattr(self.scope, name, mine)

    def scopes(self) -> Iterator[ModuleCall]:
        """The module call and all that are inside it, in this mode and in the other one."""
        yield from inside_out(self.scope)
        for item in self.items:
            if isinstance(item, ModuleCall):
                yield from inside_out(item)


@dataclass(frozen=True, slots=True)
class OtherMode:
    """The record of the other mode: the same calls, with these differences.

    Attributes:
        readings: whose mode was asked for, and by whose code.
        changed: the calls that are made with other arguments.
        replaced: the module calls in which other calls are made.
    """

    readings: set[ModeReading]
    changed: list[Changed]
    replaced: list[Replaced]

    @property
    def differs(self) -> bool:
        """Return whether there is a difference."""
        return bool(self.changed or self.replaced)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """For a while, make the calls those of the other mode."""
        different: list[Changed | Replaced] = [*self.changed, *self.replaced]
        for each in different:
            each.swap()
        try:
            yield
        finally:
            for each in different:
                each.swap()
