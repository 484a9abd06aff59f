"""Records of two runs that make one graph."""

from __future__ import annotations

from typing import Any

from layergraph.ir import Value, map_leaves
from layergraph.tensors.memory import same_bits
from layergraph.torch2ir.tracing.module_call import (
    Call,
    ModuleCall,
    Trace,
    TracedBody,
    TracedValue,
)


def are_one_graph(one: Trace, other: Trace) -> bool:
    """Return whether two records make the same calls with the same arguments, in both modes."""
    mine, theirs = one.in_other_mode, other.in_other_mode
    if mine is None or theirs is None:
        return mine is theirs and _are_one_graph(one, other)
    return _are_one_graph(one, other) and _are_one_graph(mine, theirs)


def _are_one_graph(one: Trace, other: Trace) -> bool:
    is_same = _Form().of_trace(one) == _Form().of_trace(other)
    is_same = is_same and one.constants.keys() == other.constants.keys()
    return is_same and all(
        each is other.constants[key] or same_bits(each, other.constants[key])
        for key, each in one.constants.items()
    )


class _Form:
    """The form of a record: its values are numbers, in the order in which they come about."""

    def __init__(self) -> None:
        self._numbers: dict[TracedValue, str] = {}

    def of_trace(self, trace: Trace) -> Any:
        parameters = [
            (each.name, self._value(each.value), repr(each.default), repr(each.fixed), each.by_name)
            for each in trace.parameters
        ]
        return parameters, self._scope(trace.root), trace.is_other_refused

    def _scope(self, scope: ModuleCall) -> Any:
        given = self._value(scope.args), self._value(scope.kwargs), self._value(scope.when)
        items = [self._item(each) for each in scope.items]
        place = scope.path, scope.function, scope.parameters, sorted(map(repr, scope.known))
        return place, given, items, self._value(scope.result)

    def _item(self, item: Call | ModuleCall) -> Any:
        if isinstance(item, ModuleCall):
            return self._scope(item)
        given = self._value(item.args), self._value(item.kwargs), self._value(item.when)
        return item.kind, item.target, given, self._value(item.value), item.value.rank

    def _value(self, value: Any) -> str:
        return repr(map_leaves(self._leaf, value))

    def _leaf(self, leaf: Value) -> Value:
        if isinstance(leaf, TracedBody):
            inputs = self._value(leaf.inputs)
            items = [self._item(each) for each in leaf.items]
            return repr((leaf.wish, inputs, items, self._value(leaf.result)))
        if isinstance(leaf, TracedValue):
            return self._numbers.setdefault(leaf, f"%{len(self._numbers)}")
        return leaf
