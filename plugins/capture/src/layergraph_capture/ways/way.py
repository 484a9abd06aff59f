"""One of two runs that are merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from layergraph.ir import Value, map_leaves
from layergraph.ir.values import parts
from layergraph.torch2ir.folding.interfaces import Interface, interfaces
from layergraph.torch2ir.tracing.module_call import (
    Condition,
    FunctionRead,
    ModuleCall,
    StateRead,
    Trace,
    TracedValue,
)


class NotMergeableError(Exception):
    """Two runs differ, and no question says when to take which."""


@dataclass(slots=True, eq=False)
class Way:
    """One of the two runs.

    Attributes:
        trace: its record.
        answer: the answer that it gives.
        decided: the value of the decision in its record; None if that is no part of it.
        interfaces: the border of each of its module calls.
        values: the values of the merged record, by its own.
        constants: the keys of constants in the merged record, by its own.
        functions: the functions of the merged record, by its own.
    """

    trace: Trace
    answer: bool
    decided: TracedValue | None
    interfaces: dict[ModuleCall, Interface] = field(init=False)
    values: dict[TracedValue, TracedValue] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    functions: dict[ModuleCall, FunctionRead] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.interfaces = interfaces(self.trace.scopes)

    def read(self, value: Value) -> Value:
        """Return what a value of the run is in the merged record."""
        return map_leaves(self._leaf, value)

    def _leaf(self, leaf: Value) -> Value:
        if isinstance(leaf, TracedValue):
            if leaf not in self.values:
                raise NotMergeableError(f"{leaf.wish} came about in no call")
            return self.values[leaf]
        if isinstance(leaf, FunctionRead):
            return self.functions[leaf.scope]
        if isinstance(leaf, StateRead):
            return StateRead(self.constants.get(leaf.key, leaf.key))
        return leaf

    def condition(self, when: Condition | None) -> Condition | None:
        """Return what a condition of the run is in the merged record."""
        return None if when is None else (self.read(when[0]), when[1])

    def rename(
        self,
        own: Value,
        united: Value,
        is_renamed: Callable[[TracedValue], bool] = lambda _: True,
    ) -> None:
        """Let what follows read other values of the merged record.

        Args:
            own: values of the run, nested.
            united: what they are from now on, in the merged record.
            is_renamed: returns whether a value is to be renamed.
        """
        inside, there = parts(own), parts(united)
        if inside is not None:
            if there is not None and type(own) is type(united) and len(inside) == len(there):
                for mine, theirs in zip(inside, there, strict=True):
                    self.rename(mine, theirs, is_renamed)
        elif isinstance(own, TracedValue) and isinstance(united, TracedValue) and is_renamed(own):
            self.values[own] = united
