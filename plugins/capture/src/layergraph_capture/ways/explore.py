"""Running a model on each of the ways that its decisions open."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from layergraph.choices import truth
from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.module_call import Call, Decision, Trace, TracedValue, wish_of
from layergraph_capture.ways.merge import merged
from layergraph_capture.ways.way import NotMergeableError

# A model is run so many times besides the first one.
MAX_RUNS = 7

Run = Callable[[Sequence[bool]], Trace]
"""Runs the model with answers to its first decisions."""


class Explorer:
    """Finds the ways of a model, and merges their records.

    Args:
        run: runs the model.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._runs = 0

    def explored(self, trace: Trace, number: int = 0) -> Trace:
        """Return the record of all ways that begin as a run does.

        Args:
            trace: the run.
            number: the number of its decisions to which it keeps.
        """
        if number == len(trace.decisions):
            return trace
        decision = trace.decisions[number]
        answers = [each.answer for each in trace.decisions[:number]]
        other, reason = self._other([*answers, not decision.answer])
        trace = self.explored(trace, number + 1)
        if other is not None:
            try:
                return merged(trace, self.explored(other, number + 1), number)
            except NotMergeableError as error:
                reason = f"the model goes another way by something else, too: {error}"
        _guard(decision, trace, reason)
        return trace

    def _other(self, answers: list[bool]) -> tuple[Trace | None, str]:
        """Return the run with other answers, or the reason for which there is none."""
        if self._runs == MAX_RUNS:
            return None, f"the model goes more than {MAX_RUNS + 1} ways, and this one is not held"
        self._runs += 1
        try:
            trace = self._run(answers)
        except CaptureError as error:
            return None, _reason(error)
        if [each.answer for each in trace.decisions[: len(answers)]] != answers:
            return None, "the model does not come to this decision again"
        return trace, ""


def _reason(error: CaptureError) -> str:
    """Return the text of why a way cannot be captured; the model's own error, if it raises one."""
    own = error.__cause__
    if own is not None and not isinstance(own, CaptureError):
        return f"the model raises {type(own).__name__}: {own}"
    return f"this way of the model is not held, because it cannot be captured: {error}"


def _guard(decision: Decision, trace: Trace, reason: str) -> None:
    """Let a decision have one way: the question becomes a guard."""
    for scope in trace.scopes:
        for index, item in enumerate(scope.items):
            if isinstance(item, Call) and item.value is decision.condition:
                scope.items[index : index + 1] = _guards(item, decision, reason)
                return


def _guards(call: Call, decision: Decision, reason: str) -> list[Call]:
    where = decision.where
    if call.target == f"layergraph.{truth.__name__}":
        call.target, call.value.wish = "layergraph.assume_truth", "assume_truth"
        call.args = (call.args[0], decision.answer, where, reason)
        return [call]
    place = call.value
    value = TracedValue(place.position, place.scope, wish_of("assume"))
    said = f"{where}: {reason}: the question"
    value.call = Call(
        "function",
        "layergraph.assume",
        (place, decision.answer, said),
        {},
        value,
        when=call.when,
    )
    return [call, value.call]
