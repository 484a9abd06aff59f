"""Merging of the records of two runs that answer one decision differently."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from layergraph.ir import Value
from layergraph.tensors.memory import same_bits
from layergraph.torch2ir.tracing.module_call import Parameter, Trace, inside_out, values_in
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.ways.calls import NOTHING, Calls, Instead
from layergraph_capture.ways.questions import HOLDS, Question
from layergraph_capture.ways.regions import check_regions
from layergraph_capture.ways.selection import Selection
from layergraph_capture.ways.way import NotMergeableError, Way

# ``truth`` is missing, because it raises for a tensor of several numbers.
_PURE_QUESTIONS = (HOLDS, "operator.", "torch.is_grad_enabled")


def merged(one: Trace, other: Trace, number: int, instead: Instead = NOTHING) -> Trace:
    """Return one record of two runs that answer a decision differently.

    Args:
        one: a run.
        other: another run of the same model with the same arguments.
        number: the number of the first decision that they answer differently.
        instead: replaces calls of the runs.

    Raises:
        NotMergeableError: the runs differ before the decision.
    """
    mine, theirs = one.decisions[number], other.decisions[number]
    ways = (
        Way(one, mine.answer, mine.condition),
        Way(other, theirs.answer, theirs.condition),
    )
    return _Merge(*ways, instead=instead).merged(number)


def copied(trace: Trace, instead: Instead = NOTHING) -> Trace:
    """Return a copy of a record with new calls, which the caller may change.

    Args:
        trace: the record.
        instead: replaces calls in the copy.
    """
    return _Merge(Way(trace, True, None), Way(trace, False, None), instead=instead).merged()


def is_whole(trace: Trace) -> bool:
    """Return whether a record computes the values that it reads, and makes its decisions."""
    way = Way(trace, True, None)
    try:
        _Merge(way, Way(trace, False, None)).merged()
    except NotMergeableError:
        return False
    return all(each.condition in way.values for each in trace.decisions)


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
        self,
        one: Way,
        other: Way,
        forms: Mapping[str, tuple[Value, ...]] = NOTHING,
        instead: Instead = NOTHING,
    ) -> None:
        self._ways = one, other
        self._forms = forms
        self._recorder = Recorder()
        self._selection = Selection(self._recorder, self._ways)
        self._calls = Calls(self._ways, self._recorder, self._selection, instead)

    @property
    def question(self) -> Question | None:
        """The guard that distinguishes the runs; None if there is none."""
        return self._calls.question

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
        self._calls.bodies(self._recorder.root, root, twin)
        self._drop_unread_question()
        if one.trace is not other.trace:
            check_regions(inside_out(self._recorder.root))
        decisions = [
            replace(each, condition=one.values[each.condition])
            for each in one.trace.decisions[:decided]
        ]
        return Trace(
            self._recorder.root,
            constants,
            parameters,
            other=self._calls.modes.found,
            decisions=decisions,
        )

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
        self._calls.bind(value, one.value, other.value)
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


def _by_name(one: Trace, other: Trace) -> tuple[list[Parameter], list[Parameter]]:
    """Return the arguments of two runs, which must have the same names."""
    names = [[each.name for each in trace.parameters] for trace in (one, other)]
    if names[0] != names[1]:
        differing = ", ".join(sorted({*names[0]} ^ {*names[1]})) or "their order"
        raise NotMergeableError(f"they do not have the same arguments: {differing}")
    return one.parameters, other.parameters
