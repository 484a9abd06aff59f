"""Merging of the records of two runs that answer one decision differently.

Both runs make the same calls up to the decision. After it, a call of both runs becomes one call,
with a ``choose`` node for each argument that differs. A call of one run gets the condition of its
way. Whichever calls are paired, each way keeps its own calls, arguments and order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from layergraph.control_flow.choices import holds
from layergraph.ir import Value
from layergraph.tensors.memory import same_bits
from layergraph.torch2ir.folding.conditions import call_of_choose
from layergraph.torch2ir.tracing.module_call import (
    Call,
    Condition,
    FunctionRead,
    ModuleCall,
    Parameter,
    Trace,
    TracedValue,
    functions_in,
    inside_out,
    values_in,
)
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.ways.alignment import aligned
from layergraph_capture.ways.regions import Item, check_regions
from layergraph_capture.ways.selection import Selection, are_same, identity
from layergraph_capture.ways.way import NotMergeableError, Way

HOLDS = f"layergraph.{holds.__name__}"
GUARD = "layergraph.assume"
# ``truth`` is missing, because it raises for a tensor of several numbers.
_PURE_QUESTIONS = (HOLDS, "operator.", "torch.is_grad_enabled")


def merged(one: Trace, other: Trace, number: int) -> Trace:
    """Return one record of two runs that answer a decision differently.

    Args:
        one: a run.
        other: another run of the same model with the same arguments.
        number: the number of the first decision that they answer differently.

    Raises:
        NotMergeableError: the runs differ before the decision.
    """
    mine, theirs = one.decisions[number], other.decisions[number]
    ways = (
        Way(one, mine.answer, mine.condition),
        Way(other, theirs.answer, theirs.condition),
    )
    return _Merge(*ways).merged(number)


def copied(trace: Trace) -> Trace:
    """Return a copy of a record with new calls, which the caller may change."""
    decisions = len(trace.decisions)
    return _Merge(Way(trace, True, None), Way(trace, False, None)).merged(decisions)


@dataclass(frozen=True, slots=True)
class Question:
    """The guard that distinguishes two runs.

    Attributes:
        position: its position in the first run.
        own: the text of the value in the first run.
        other: the text of the value in the other run.
    """

    position: int
    own: str
    other: str


def merged_by_guard(one: Trace, other: Trace) -> tuple[Trace, Question | None]:
    """Return one record of two runs with different inputs.

    The first guard whose value differs becomes the decision. There is none if both make the same
    calls.

    Args:
        one: a run.
        other: another run of the same model, with arguments of the same form.

    Raises:
        NotMergeableError: they differ before such a guard.
    """
    merge = _Merge(Way(one, True, None), Way(other, False, None))
    return merge.merged(), merge.question


def merged_by_form(one: Trace, other: Trace, forms: Mapping[str, tuple[Value, ...]]) -> Trace:
    """Return one record of two runs whose arguments have different forms.

    Args:
        one: a run.
        other: another run of the same model.
        forms: by name of an argument, the guard that it passes in the first run only, and the
            arguments of this guard after the value.

    Raises:
        NotMergeableError: they do not have the same arguments.
    """
    return _Merge(Way(one, True, None), Way(other, False, None), forms).merged()


class _Merge:
    def __init__(
        self, one: Way, other: Way, forms: Mapping[str, tuple[Value, ...]] | None = None
    ) -> None:
        self._ways = one, other
        self._forms = forms or {}
        self._recorder = Recorder()
        self._selection = Selection(self._recorder, self._ways)
        self.question: Question | None = None

    def merged(self, decided: int = 0) -> Trace:
        """Return one record.

        Args:
            decided: the number of decisions that both runs answer equally.
        """
        one, other = self._ways
        constants = self._constants()
        parameters = [*map(self._parameter, *_by_name(one.trace, other.trace))]
        root, twin = one.trace.root, other.trace.root
        self._recorder.root.parameters = root.parameters
        self._recorder.root.args = one.read(root.args)
        self._ask_form(parameters)
        self._both_bodies(self._recorder.root, root, twin)
        self._drop_unread_question()
        if one.trace is not other.trace:
            check_regions(inside_out(self._recorder.root))
        decisions = [
            replace(each, condition=one.values[each.condition])
            for each in one.trace.decisions[:decided]
        ]
        return Trace(self._recorder.root, constants, parameters, decisions=decisions)

    def _drop_unread_question(self) -> None:
        """Remove the question if both ways make the same calls."""
        question = None if self._selection.decision is None else self._selection.decision.call
        if question is None or not question.target.startswith(_PURE_QUESTIONS):
            return
        for scope in inside_out(self._recorder.root):
            reads = (value for item in scope.items for value in item.reads())
            if question.value in itertools.chain(reads, values_in(scope.result)):
                return
        question.value.scope.items.remove(question)

    def _parameter(self, one: Parameter, other: Parameter) -> Parameter:
        value = self._recorder.value(one.value.wish)
        self._bind(value, one.value, other.value)
        is_fixed = repr(one.fixed) == repr(other.fixed)
        return replace(one, value=value, fixed=one.fixed if is_fixed else ())

    def _ask_form(self, parameters: Iterable[Parameter]) -> None:
        """Make the forms of arguments the decision."""
        for each in parameters:
            if each.name in self._forms:
                guard, *given = self._forms[each.name]
                holds = self._recorder.call("function", HOLDS, (guard, each.value, *given), {})
                if self._selection.decision is not None:
                    both = self._selection.decision, holds
                    holds = self._recorder.call("function", "operator.and_", both, {})
                self._selection.decision = holds

    def _constants(self) -> dict[str, Any]:
        one, other = self._ways
        constants = dict(one.trace.constants)
        for key, tensor in other.trace.constants.items():
            known = constants.get(key)
            if known is None:
                constants[key] = tensor
            elif known is not tensor and not same_bits(known, tensor):
                other.constants[key] = f"{key}:{len(constants)}"
                constants[other.constants[key]] = tensor
        return constants

    # --- module calls ---

    def _both_bodies(self, scope: ModuleCall, one: ModuleCall, other: ModuleCall) -> None:
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
        for value, name in way.interfaces[side].inputs.items():
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
                self._both_bodies(self._enter_function(((mine, one), (theirs, other))), one, other)
                return
            args = self._selection.selected(one.args, other.args)
            kwargs = self._selection.selected(one.kwargs, other.kwargs)
            are_alike = isinstance(args, tuple) and isinstance(kwargs, dict)
            for way, side in ((mine, one), (theirs, other)):
                if are_alike:
                    way.rename((side.args, side.kwargs), (args, kwargs))
            scope = self._enter(one, when)
            scope.args, scope.kwargs = (args, kwargs) if are_alike else ((), {})
            self._both_bodies(scope, one, other)
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
            self._bind(value, one.value, other.value)
            are_decided = one.value is mine.decided, other.value is theirs.decided
            if all(are_decided):
                self._selection.decision = value
            elif any(are_decided):
                raise NotMergeableError("the runs come to the decision at different places")

    def _one(self, way: Way, item: Item, when: Condition | None) -> None:
        """Copy a call that only one way makes."""
        own = way.condition(item.when)
        if own is not None and when is not None and own[0] not in self._selection.of_one_way:
            # The condition has to exist on both ways.
            both = call_of_choose((own[0], True, False), self._recorder.value(""), when)
            self._recorder.scope.items.append(both)
            own = both.value, own[1]
        own = own or when
        if isinstance(item, ModuleCall):
            if item.function:
                scope = self._enter_function(((way, item),))
            else:
                args, kwargs = way.read(item.args), way.read(item.kwargs)
                scope = self._enter(item, own)
                scope.args, scope.kwargs = args, kwargs
            scope.known = set(item.known)
            self._keep_facts(way, item, None)
            for inner in item.items:
                self._one(way, inner, None)
            self._recorder.leave(way.read(item.result))
            return
        args, kwargs = way.read(item.args), way.read(item.kwargs)
        value = way.values[item.value] = self._recorder.call(
            item.kind, item.target, args, kwargs, item.where, own, is_late=item.is_late
        )
        value.wish = item.value.wish
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
        given = [
            [way.functions[scope] for scope in functions_in(item.args, item.kwargs)]
            for way, item in ((mine, one), (theirs, other))
        ]
        return given[0] != given[1]

    # --- items ---

    def _items(self, ones: list[Item], others: list[Item]) -> None:
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
            if not self._is_question(one, other):
                if _called(one) != _called(other):
                    raise NotMergeableError(f"{_called(one)} and {_called(other)} come first")
                self._both(one, other)
            at = [at[0] + 1, at[1] + 1]
            late.clear()
        if self._selection.decision is None and at != [len(ones), len(others)]:
            raise NotMergeableError("one run makes more calls")
        return at[0], at[1]

    def _is_question(self, one: Item, other: Item) -> bool:
        """Return whether two calls are guards that distinguish the ways; decide by the first.

        Both check the same value, which is for example a tensor on one way and None on the other.
        If the other way was merged from several examples that differ at this guard, it has a
        decision in this place.
        """
        mine, theirs = self._ways
        if mine.decided is not None or not (_is_guard(one) and isinstance(other, Call)):
            return False
        value, *said = mine.read(one.args)
        is_asked = other.target == HOLDS
        if not (is_asked or _is_guard(other)):
            return False
        there, *theirs_said = theirs.read(other.args[1:] if is_asked else other.args)
        guard = one.target.removeprefix("layergraph.")
        their_guard = other.args[0] if is_asked else other.target.removeprefix("layergraph.")
        is_same_guard = guard == their_guard
        if not are_same(value, there):
            return False
        if not is_asked and is_same_guard and are_same(said, theirs_said):
            return False
        self._selection.decision = self._recorder.call("function", HOLDS, (guard, value, *said), {})
        self._one(theirs, other, self._when(theirs))
        passed = repr((guard, said)), repr((their_guard, theirs_said))
        self.question = Question(one.value.position, *passed)
        last = theirs.values[other.value].call
        if guard == "assume" and is_same_guard and not is_asked and last is not None:
            # The message names both examples.
            expected, where = theirs_said
            text = f"{where} was {said[0]!r} in one example, and in another one it"
            last.args = value, expected, text
        return True

    def _late(self, way: Way, item: Call, known: dict[object, TracedValue]) -> None:
        """Merge a deferred call; reuse the call if the other way has made it already."""
        key = item.target, identity((way.read((item.args, item.kwargs)), way.condition(item.when)))
        if key not in known:
            self._one(way, item, None)
            known[key] = way.values[item.value]
            self._selection.note_both_ways(known[key])
        way.values[item.value] = known[key]

    def _when(self, way: Way) -> Condition | None:
        return None if self._selection.decision is None else (self._selection.decision, way.answer)

    # --- values ---

    def _bind(self, value: TracedValue, one: TracedValue, other: TracedValue) -> None:
        """Bind the values of both ways to a merged value."""
        value.wish = one.wish
        self._selection.take_facts(value, one, other)
        for way, own in zip(self._ways, (one, other), strict=True):
            way.values[own] = value


def _by_name(one: Trace, other: Trace) -> tuple[list[Parameter], list[Parameter]]:
    """Return the arguments of two runs, which must have the same names."""
    names = [[each.name for each in trace.parameters] for trace in (one, other)]
    if names[0] != names[1]:
        differing = ", ".join(sorted({*names[0]} ^ {*names[1]})) or "their order"
        raise NotMergeableError(f"they do not have the same arguments: {differing}")
    return one.parameters, other.parameters


def _is_guard(item: Item) -> TypeGuard[Call]:
    return isinstance(item, Call) and item.target.startswith(GUARD)


def _is_late(item: Item) -> TypeGuard[Call]:
    return isinstance(item, Call) and item.is_late


def _called(item: Item) -> tuple[str, ...]:
    if isinstance(item, ModuleCall):
        return "module", item.path, item.function
    return item.kind, item.target
