"""Selection of argument values for merged calls: of one run, of the other, or by ``choose``."""

from __future__ import annotations

from layergraph.ir import Record, Symbol, Value, map_leaves
from layergraph.ir.values import parts, rebuilt
from layergraph.outputs import ATTRIBUTE
from layergraph.torch2ir.folding.conditions import call_of_choose
from layergraph.torch2ir.tracing.module_call import (
    Condition,
    FunctionRead,
    ModuleCall,
    TracedValue,
)
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.ways.value_numbers import named_value
from layergraph_capture.ways.way import NotMergeableError, Way

_PLAIN_CONTAINERS = frozenset({tuple, list, dict})


class Selection:
    """Selects values by the decision.

    Args:
        recorder: records a call for each choice.
        ways: the two runs.

    Attributes:
        decision: the merged value of the decision; None before it.
        of_one_way: the values that exist on one way only, with the answer of that way.
    """

    def __init__(self, recorder: Recorder, ways: tuple[Way, Way]) -> None:
        self._recorder = recorder
        self._ways = ways
        self.decision: TracedValue | None = None
        self.of_one_way: dict[TracedValue, bool] = {}
        # Their ranks and dtypes. The values do not have these, because they may be None.
        self._facts: dict[TracedValue, tuple[int | None, Symbol | None]] = {}
        self._chosen: dict[tuple[ModuleCall, object], TracedValue] = {}

    def selected(self, one: Value, other: Value) -> Value:
        """Return the argument of a merged call, from the values of both runs."""
        kind = type(one)
        if kind is type(other) and kind in _PLAIN_CONTAINERS and len(one) == len(other):
            if kind is not dict:
                return kind([*map(self.selected, one, other)])
            if list(one) == list(other):
                return {key: self.selected(each, other[key]) for key, each in one.items()}
        mine, theirs = self._ways
        return self._select(mine.read(one), theirs.read(other))

    def _select(self, one: Value, other: Value) -> Value:
        if are_same(one, other):
            return one
        if self.decision is None:
            raise NotMergeableError("two calls get different arguments before the decision")
        inside, there = parts(one), parts(other)
        if inside is not None and there is not None and _are_alike(one, other):
            return rebuilt(one, [*map(self._select, inside, there)])
        for value, none, way in ((one, other, self._ways[0]), (other, one, self._ways[1])):
            # The value is already None on the other way.
            is_of_way = isinstance(value, TracedValue) and self.of_one_way.get(value) is way.answer
            if none is None and is_of_way:
                return value
        if isinstance(one, FunctionRead) or isinstance(other, FunctionRead):
            raise NotMergeableError("two calls run different functions")
        if not self._ways[0].answer:
            one, other = other, one
        if one is True and other is False:
            return self.decision
        return self._choose(one, other)

    def _choose(self, if_true: Value, if_false: Value) -> TracedValue:
        chosen = self._by(self.decision, if_true, if_false)
        if isinstance(if_true, TracedValue) and isinstance(if_false, TracedValue):
            self.take_facts(chosen, if_true, if_false)
        return chosen

    def _by(
        self, condition: Value, if_true: Value, if_false: Value, when: Condition | None = None
    ) -> TracedValue:
        """Return a value by a condition; reuse the call of this module call or one around it."""
        asked = identity((condition, if_true, if_false, when))
        scope: ModuleCall | None = self._recorder.scope
        while scope is not None:
            known = self._chosen.get((scope, asked))
            if known is not None:
                return known
            scope = scope.parent
        call = call_of_choose((condition, if_true, if_false), self._recorder.value(""), when)
        self._recorder.scope.items.append(call)
        self._chosen[self._recorder.scope, asked] = call.value
        return call.value

    def both(self, own: Condition | None, when: Condition | None) -> Condition | None:
        """Return the condition of a call that needs two conditions.

        Args:
            own: its condition on its way.
            when: the condition of the way.
        """
        if own is None or when is None or own[0] in self.of_one_way:
            return own or when
        # The condition has to exist on both ways.
        return self._by(own[0], True, False, when), own[1]

    def either(self, one: Condition | None, other: Condition | None) -> Condition | None:
        """Return the condition of a merged call, from its conditions on both ways."""
        expected = next((each[1] for each in (one, other) if each is not None), None)
        if expected is None or one == other:
            return one
        value = self._select(self._asked(one, expected), self._asked(other, expected))
        return value, expected

    def _asked(self, when: Condition | None, expected: bool) -> Value:
        """Return a value that equals ``expected`` if a condition holds."""
        if when is None:
            return expected
        value, own = when
        if own is expected:
            return value
        return self._by(value, False, True)

    def note_one_way(self, value: TracedValue, own: TracedValue, answer: bool) -> None:
        """Record that a value is None on the other way.

        Args:
            value: the value.
            own: the value in the record of its run.
            answer: the answer of its way.
        """
        self.of_one_way[value] = answer
        self._facts[value] = own.rank, own.dtype

    def note_both_ways(self, value: TracedValue) -> None:
        """Record that both ways compute a value."""
        self.of_one_way.pop(value)
        value.rank, value.dtype = self._facts.pop(value)

    def take_facts(self, value: TracedValue, *from_ways: TracedValue) -> None:
        """Set the rank and dtype of a value if they are the same on both ways."""
        (rank, dtype), other = [
            self._facts.get(each, (each.rank, each.dtype)) for each in from_ways
        ]
        value.rank = rank if rank == other[0] else None
        value.dtype = dtype if dtype == other[1] else None


def are_same(one: Value, other: Value) -> bool:
    """Return whether two merged values are the same; 1 differs from True, and nan equals nan."""
    inside, there = parts(one), parts(other)
    if inside is not None and there is not None:
        return _are_alike(one, other) and all(map(are_same, inside, there))
    return one is other or (
        not isinstance(one, TracedValue)
        and not isinstance(other, TracedValue)
        and type(one) is type(other)
        and repr(one) == repr(other)
    )


def _are_alike(one: Value, other: Value) -> bool:
    """Return whether two containers have the same type and keys."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other)
    inside, there = parts(one), parts(other)
    return (
        inside is not None
        and there is not None
        and len(inside) == len(there)
        and _class_of(one) == _class_of(other)
    )


def _class_of(value: Value) -> object:
    """Return what a record says of its class; None for another value."""
    if not isinstance(value, Record):
        return None
    facts = [(key, each) for key, each in value.fields.items() if key.startswith(ATTRIBUTE)]
    return value.type, [*value.fields], facts


def identity(value: Value) -> object:
    """Return a key that is equal for the same values."""
    return repr(map_leaves(named_value, value))
