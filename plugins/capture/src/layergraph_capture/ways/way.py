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
    inside_out,
)


class NotMergeableError(Exception):
    """Two runs differ, and no decision selects between them."""


@dataclass(slots=True, eq=False)
class Way:
    """One of the two runs.

    Attributes:
        trace: its record.
        answer: its answer to the decision.
        decided: the value of the decision in its record; None if its record has none.
        values: the merged values, by its own values.
        constants: the merged keys of constants, by its own keys.
        functions: the merged functions, by its own functions.
    """

    trace: Trace
    answer: bool
    decided: TracedValue | None
    values: dict[TracedValue, TracedValue] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    functions: dict[ModuleCall, FunctionRead] = field(default_factory=dict)
    _interfaces: dict[ModuleCall, Interface] = field(default_factory=dict)

    def inputs(self, scope: ModuleCall) -> dict[TracedValue, str]:
        """Return the inputs of a module call of the run, with their names.

        Raises:
            NotMergeableError: the run reads a value of a module call that it does not make.
        """
        if not self._interfaces:
            # A run in the other mode has other module calls than the record of its scopes.
            try:
                self._interfaces = interfaces(inside_out(self.trace.root))
            except KeyError:
                raise NotMergeableError("a value is from a module call of the other mode") from None
        return self._interfaces[scope].inputs

    def read(self, value: Value) -> Value:
        """Return the merged value of a value of the run."""
        return map_leaves(self._leaf, value)

    def _leaf(self, leaf: Value) -> Value:
        if isinstance(leaf, TracedValue):
            if leaf not in self.values:
                raise NotMergeableError(f"{leaf.wish} belongs to no call")
            return self.values[leaf]
        if isinstance(leaf, FunctionRead):
            return self.functions[leaf.scope]
        if isinstance(leaf, StateRead):
            return StateRead(self.constants.get(leaf.key, leaf.key))
        return leaf

    def condition(self, when: Condition | None) -> Condition | None:
        """Return the merged condition of a condition of the run."""
        return None if when is None else (self.read(when[0]), when[1])

    def rename(
        self,
        own: Value,
        united: Value,
        is_renamed: Callable[[TracedValue], bool] = lambda _: True,
    ) -> None:
        """Rename values for later reads.

        Args:
            own: nested values of the run.
            united: their new merged values.
            is_renamed: returns whether to rename a value.
        """
        inside, there = parts(own), parts(united)
        if inside is not None:
            if there is not None and type(own) is type(united) and len(inside) == len(there):
                for mine, theirs in zip(inside, there, strict=True):
                    self.rename(mine, theirs, is_renamed)
        elif isinstance(own, TracedValue) and isinstance(united, TracedValue) and is_renamed(own):
            self.values[own] = united
