"""The calls of a run that differ between training and evaluation."""

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
"""The path of a module whose mode is read, and the path of the module whose code reads it."""


def is_mode_call(item: Call | ModuleCall) -> TypeGuard[Call]:
    """Return whether an item of a module call records a read of ``training``."""
    return isinstance(item, Call) and item.kind == "mode"


def mode_calls(scopes: Iterable[ModuleCall]) -> list[Call]:
    """Return the calls in module calls that read a module's mode."""
    return [item for scope in scopes for item in with_bodies(scope.items) if is_mode_call(item)]


def mode_readings(calls: Iterable[Call]) -> set[ModeReading]:
    """Return the mode readings of calls: the module that is read, and the module that reads."""
    return {(call.target, call.value.scope.path) for call in calls}


def take_mode_calls(scopes: Iterable[ModuleCall]) -> list[Call]:
    """Return the calls that read a module's mode, and remove them from the module calls."""
    taken = mode_calls(scopes)
    for scope in {call.value.scope for call in taken}:
        scope.items = [item for item in scope.items if not is_mode_call(item)]
    return taken


@dataclass(slots=True)
class Changed:
    """A call that has other arguments in the other mode.

    Attributes:
        call: the call.
        args: its positional arguments there.
        kwargs: its keyword arguments there.
    """

    call: Call
    args: tuple[Value, ...]
    kwargs: dict[str, Value]

    def swap(self) -> None:
        """Exchange the call's arguments with those of the other mode."""
        self.call.args, self.args = self.args, self.call.args
        self.call.kwargs, self.kwargs = self.kwargs, self.call.kwargs


@dataclass(slots=True)
class Replaced:
    """A module call that makes other calls in the other mode.

    Its arguments are the same in both modes, and the same traced values are its results.

    Attributes:
        scope: the module call.
        start: the first position inside it there.
        end: the first position after it there.
        items: its calls there.
        late: its deferred calls there.
        known: the facts that its code reads there.
        result: its result there.
    """

    scope: ModuleCall
    start: int
    end: int = -1
    result: Value = None
    items: list[Call | ModuleCall] = field(default_factory=list)
    late: list[tuple[int, DeferredCall]] = field(default_factory=list)
    known: set[Fact] = field(default_factory=set)

    def swap(self) -> None:
        """Exchange the contents of the module call with those of the other mode."""
        for name in ("start", "end", "result", "items", "late", "known"):
            mine, own = getattr(self, name), getattr(self.scope, name)
            setattr(self, name, own)
            setattr(self.scope, name, mine)

    def scopes(self) -> Iterator[ModuleCall]:
        """Yield the module call and all module calls inside it, of both modes."""
        yield from inside_out(self.scope)
        for item in self.items:
            if isinstance(item, ModuleCall):
                yield from inside_out(item)


@dataclass(frozen=True, slots=True)
class OtherMode:
    """The other mode of a run, as differences from the recorded mode.

    Attributes:
        readings: the mode readings of the run.
        changed: the calls that have other arguments.
        replaced: the module calls that make other calls.
    """

    readings: set[ModeReading]
    changed: list[Changed]
    replaced: list[Replaced]

    @property
    def differs(self) -> bool:
        """Return whether the modes differ."""
        return bool(self.changed or self.replaced)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Exchange the calls with those of the other mode inside a ``with`` block."""
        different: list[Changed | Replaced] = [*self.changed, *self.replaced]
        for each in different:
            each.swap()
        try:
            yield
        finally:
            for each in different:
                each.swap()
