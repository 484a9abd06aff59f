"""Merging of the calls of two runs, module call by module call.

Both runs make the same calls up to the decision. After it, a call of both runs becomes one call,
with a ``choose`` node for each argument that differs. A call of one run gets the condition of its
way. Whichever calls are paired, each way keeps its own calls, arguments and order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeGuard

from layergraph.ir import Value
from layergraph.torch2ir.tracing.module_call import (
    Call,
    Condition,
    FunctionRead,
    ModuleCall,
    TracedValue,
    functions_in,
)
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.ways.alignment import aligned
from layergraph_capture.ways.modes import MergedModes
from layergraph_capture.ways.questions import HOLDS, Question, asked
from layergraph_capture.ways.regions import Item
from layergraph_capture.ways.selection import Selection, identity
from layergraph_capture.ways.way import NotMergeableError, Way

Instead = Mapping[Call, Sequence[Call]]
"""Calls of runs, each with the calls that take its place in the merged record."""

NOTHING: Mapping[Any, Any] = MappingProxyType({})


class Calls:
    """Records the merged calls of two runs.

    Args:
        ways: the two runs.
        recorder: records the merged calls.
        selection: selects their arguments.
        instead: replaces calls of the runs.

    Attributes:
        question: the guard that distinguishes the runs; None if another decision does.
        modes: the merged calls that have other arguments in the other mode.
    """

    def __init__(
        self, ways: tuple[Way, Way], recorder: Recorder, selection: Selection, instead: Instead
    ) -> None:
        self._ways = ways
        self._instead = instead
        self._recorder = recorder
        self._selection = selection
        self.question: Question | None = None
        self.modes = MergedModes(ways, selection)

    def bodies(self, scope: ModuleCall, one: ModuleCall, other: ModuleCall) -> None:
        """Merge the calls and the results of two module calls."""
        scope.known = one.known | other.known
        for way, side in zip(self._ways, (one, other), strict=True):
            self._keep_facts(way, side, self._when(way))
        self._items(one.items, other.items)
        result = self._selection.selected(one.result, other.result)
        if scope.parent is not None and not scope.function:
            self._unite(one, other, result)
        self._recorder.leave(result)

    def _unite(self, one: ModuleCall, other: ModuleCall, result: Value) -> None:
        """Rename the results of a merged module call for the code around it, on both ways."""
        for way, side in zip(self._ways, (one, other), strict=True):
            way.rename(side.result, result, side.contains)

    def _keep_facts(self, way: Way, side: ModuleCall, when: Condition | None) -> None:
        """Guard the rank and dtype of inputs that only one way reads."""
        if not side.known:
            return
        for value, name in way.inputs(side).items():
            here = way.values.get(value)
            if here is None or (here.rank, here.dtype) == (value.rank, value.dtype):
                continue
            rank = value.rank if "rank" in side.known else None
            dtype = value.dtype if "dtype" in side.known else None
            if rank is not None or dtype is not None:
                if self._selection.decision is None:
                    raise NotMergeableError(f"their ranks or dtypes of {name!r} differ")
                args = (here, name, rank, dtype)
                self._recorder.call("function", "layergraph.assume_tensor", args, {}, "", when)

    def _both(self, one: Item, other: Item) -> None:
        """Merge two calls of the same target."""
        mine, theirs = self._ways
        when = self._selection.either(mine.condition(one.when), theirs.condition(other.when))
        if isinstance(one, ModuleCall) and isinstance(other, ModuleCall):
            if one.function:
                self.bodies(self._enter_function(((mine, one), (theirs, other))), one, other)
                return
            args = self._selection.selected(one.args, other.args)
            kwargs = self._selection.selected(one.kwargs, other.kwargs)
            are_alike = isinstance(args, tuple) and isinstance(kwargs, dict)
            for way, side in ((mine, one), (theirs, other)):
                if are_alike:
                    way.rename((side.args, side.kwargs), (args, kwargs))
            scope = self._enter(one, when)
            scope.args, scope.kwargs = (args, kwargs) if are_alike else ((), {})
            self.bodies(scope, one, other)
        elif isinstance(one, Call) and isinstance(other, Call):
            if self._run_other_functions(one, other):
                self._one(mine, one, self._when(mine))
                self._one(theirs, other, self._when(theirs))
                return
            args = self._selection.selected(one.args, other.args)
            kwargs = self._selection.selected(one.kwargs, other.kwargs)
            if not isinstance(args, tuple):
                raise NotMergeableError("two calls have different numbers of arguments")
            value = self._recorder.call(
                one.kind, one.target, args, kwargs, one.where, when, is_late=one.is_late
            )
            self.modes.both(value, one, other)
            self.bind(value, one.value, other.value)
            are_decided = one.value is mine.decided, other.value is theirs.decided
            if all(are_decided):
                self._selection.decision = value
            elif any(are_decided):
                raise NotMergeableError("the runs come to the decision at different places")

    def _one(self, way: Way, item: Item, when: Condition | None) -> None:
        """Copy a call that only one way makes."""
        own = self._selection.both(way.condition(item.when), when)
        if isinstance(item, ModuleCall):
            if item.function:
                scope = self._enter_function(((way, item),))
            else:
                args, kwargs = way.read(item.args), way.read(item.kwargs)
                scope = self._enter(item, own)
                scope.args, scope.kwargs = args, kwargs
            scope.known = set(item.known)
            self._keep_facts(way, item, None)
            for inner in self._replaced(item.items):
                self._one(way, inner, None)
            self._recorder.leave(way.read(item.result))
            return
        args, kwargs = way.read(item.args), way.read(item.kwargs)
        value = way.values[item.value] = self._recorder.call(
            item.kind, item.target, args, kwargs, item.where, own, is_late=item.is_late
        )
        value.wish = item.value.wish
        self.modes.one(value, way, item)
        self._selection.note_one_way(value, item.value, way.answer)

    def _enter(self, like: ModuleCall, when: Condition | None) -> ModuleCall:
        """Begin a call of the module of another module call."""
        scope = self._recorder.enter(like.path, when)
        scope.parameters = like.parameters
        return scope

    def _enter_function(self, sides: Sequence[tuple[Way, ModuleCall]]) -> ModuleCall:
        """Begin the merged function of both sides, and bind its inputs."""
        _, like = sides[0]
        scope = self._recorder.enter(like.path, function=like.function)
        scope.parameters = like.parameters
        scope.args = tuple([self._recorder.value(each) for each in like.parameters])
        read = FunctionRead(scope)
        for way, side in sides:
            way.functions[side] = read
            way.values.update(zip(side.args, scope.args, strict=True))
        for value, *own in zip(scope.args, *[side.args for _, side in sides], strict=True):
            value.rank, value.dtype = own[0].rank, own[0].dtype
            if len(own) > 1:
                self._selection.take_facts(value, *own)
        return scope

    def _run_other_functions(self, one: Call, other: Call) -> bool:
        """Return whether two calls take functions that have not been merged."""
        mine, theirs = self._ways
        if not mine.functions and not theirs.functions:
            return False
        given = [
            [way.functions[scope] for scope in functions_in(item.args, item.kwargs)]
            for way, item in ((mine, one), (theirs, other))
        ]
        return given[0] != given[1]

    # --- items ---

    def _replaced(self, items: list[Item]) -> list[Item]:
        if not self._instead:
            return items
        known = self._instead
        return [
            each
            for item in items
            for each in (known.get(item, (item,)) if isinstance(item, Call) else (item,))
        ]

    def _items(self, ones: list[Item], others: list[Item]) -> None:
        ones, others = self._replaced(ones), self._replaced(others)
        done, there = self._shared(ones, others)
        mine, theirs = self._ways
        for one, other in aligned(ones[done:], others[there:]):
            if one is not None and other is not None:
                self._both(one, other)
            elif one is not None:
                self._one(mine, one, self._when(mine))
            elif other is not None:
                self._one(theirs, other, self._when(theirs))

    def _shared(self, ones: list[Item], others: list[Item]) -> tuple[int, int]:
        """Merge the equal calls up to the decision; return their numbers in both runs.

        A deferred call, such as a read of a size, exists only in a run that uses its result.
        """
        mine, theirs = self._ways
        at = [0, 0]
        late: dict[object, TracedValue] = {}
        while self._selection.decision is None and (at[0] < len(ones) or at[1] < len(others)):
            for n, (way, items) in enumerate(((mine, ones), (theirs, others))):
                while at[n] < len(items) and _is_late(item := items[at[n]]):
                    self._late(way, item, late)
                    at[n] += 1
            if at[0] == len(ones) or at[1] == len(others):
                break
            one, other = ones[at[0]], others[at[1]]
            if not self._is_decided(one, other):
                if _called(one) != _called(other):
                    raise NotMergeableError(f"{_called(one)} and {_called(other)} come first")
                self._both(one, other)
            at = [at[0] + 1, at[1] + 1]
            late.clear()
        if self._selection.decision is None and at != [len(ones), len(others)]:
            raise NotMergeableError("one run makes more calls")
        return at[0], at[1]

    def _is_decided(self, one: Item, other: Item) -> bool:
        """Return whether two calls are guards that distinguish the ways; decide by the first."""
        mine, theirs = self._ways
        question = None if mine.decided is not None else asked(self._ways, one, other)
        if question is None:
            return False
        args = question.guard, *question.args
        self._selection.decision = self._recorder.call("function", HOLDS, args, {})
        self._one(theirs, other, self._when(theirs))
        self.question = question
        if isinstance(other, Call):
            question.explain(theirs.values[other.value])
        self.modes.keep(one, other)
        return True

    def _late(self, way: Way, item: Call, known: dict[object, TracedValue]) -> None:
        """Merge a deferred call; reuse the call if the other way has made it already."""
        key = item.target, identity((way.read((item.args, item.kwargs)), way.condition(item.when)))
        if key not in known:
            self._one(way, item, None)
            known[key] = way.values[item.value]
            self._selection.note_both_ways(known[key])
        way.values[item.value] = known[key]
        self.modes.keep(item)

    def _when(self, way: Way) -> Condition | None:
        return None if self._selection.decision is None else (self._selection.decision, way.answer)

    # --- values ---

    def bind(self, value: TracedValue, one: TracedValue, other: TracedValue) -> None:
        """Bind the values of both ways to a merged value."""
        value.wish = one.wish
        self._selection.take_facts(value, one, other)
        for way, own in zip(self._ways, (one, other), strict=True):
            way.values[own] = value


def _is_late(item: Item) -> TypeGuard[Call]:
    return isinstance(item, Call) and item.is_late


def _called(item: Item) -> tuple[str, ...]:
    if isinstance(item, ModuleCall):
        return "module", item.path, item.function
    return item.kind, item.target
