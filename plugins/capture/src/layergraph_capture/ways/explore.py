"""Exploration of the ways of a model: it runs with each answer to its decisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from layergraph.errors import CaptureError, first_line
from layergraph.torch2ir.tracing.module_call import Call, Decision, Trace, TracedValue, wish_of
from layergraph_capture.ways.decisions import TRUTH
from layergraph_capture.ways.merge import copied, merged
from layergraph_capture.ways.way import NotMergeableError

# The most runs besides the first one.
MAX_RUNS = 7

RunWith = Callable[[Sequence[bool]], Trace]
"""A function that runs the model with forced answers to its first decisions."""


@dataclass(frozen=True, slots=True, eq=False)
class Fork:
    """The runs that are equal up to a decision.

    Attributes:
        number: the number of this decision.
        own: the runs with the answer of the first run.
        other: the runs with the other answer; None if there is none.
        reason: the reason why there is none.
    """

    number: int
    own: Ways
    other: Ways | None
    reason: str


Ways = Fork | Trace


class Explorer:
    """Finds the ways of a model.

    Args:
        run: runs the model.

    Attributes:
        is_over: whether the model goes more ways than runs are made.
    """

    def __init__(self, run: RunWith) -> None:
        self._run = run
        self._runs = 0
        self.is_over = False

    def explored(self, trace: Trace, number: int = 0) -> Ways:
        """Return the ways that share the first answers of a run.

        Args:
            trace: the run.
            number: the number of shared answers.
        """
        if number == len(trace.decisions):
            return trace
        answers = [each.answer for each in trace.decisions[:number]]
        other, reason = None, ""
        # Decisions by numbers come first, so that each way by a size has them all.
        decision = trace.decisions[number]
        is_free = not decision.is_by_size or decision.is_branch
        if not decision.is_guard and (is_free or all(each.is_by_size for each in trace.decisions)):
            other, reason = self._other([*answers, not decision.answer])
        own = self.explored(trace, number + 1)
        there = None if other is None else self.explored(other, number + 1)
        return Fork(number, own, there, reason)

    def _other(self, answers: list[bool]) -> tuple[Trace | None, str]:
        """Return the run with other answers, or the reason why there is none."""
        if self._runs == MAX_RUNS:
            self.is_over = True
            return None, f"the model goes more than {MAX_RUNS + 1} ways, and this one is not held"
        self._runs += 1
        try:
            trace = self._run(answers)
        except CaptureError as error:
            return None, reason_of(error)
        if [each.answer for each in trace.decisions[: len(answers)]] != answers:
            return None, "the model does not come to this decision again"
        return trace, ""


def traces_of(ways: Ways | None) -> list[Trace]:
    """Return the records of all runs."""
    if isinstance(ways, Fork):
        return [*traces_of(ways.own), *traces_of(ways.other)]
    return [] if ways is None else [ways]


def whole(ways: Ways, *, by_sizes: bool = True) -> Trace:
    """Return one record of all ways, which leaves the records of the runs as they are.

    Args:
        ways: the ways.
        by_sizes: False for a guard instead of each decision by a size.
    """
    found = _whole(ways, by_sizes=by_sizes)
    return copied(found.trace, found.instead) if found.instead else found.trace


@dataclass(frozen=True, slots=True)
class _Part:
    """The record of some ways.

    Attributes:
        trace: the record.
        is_new: whether no run made it.
        instead: the guards that are still to take the place of decisions in it.
    """

    trace: Trace
    is_new: bool
    instead: dict[Call, list[Call]] = field(default_factory=dict)


def _whole(ways: Ways, *, by_sizes: bool) -> _Part:
    if isinstance(ways, Trace):
        return _Part(ways, is_new=False)
    own, reason = _whole(ways.own, by_sizes=by_sizes), ways.reason
    decision = own.trace.decisions[ways.number]
    if ways.other is not None and (by_sizes or not decision.is_by_size):
        other = _whole(ways.other, by_sizes=by_sizes)
        instead = own.instead | other.instead
        try:
            return _Part(merged(own.trace, other.trace, ways.number, instead), is_new=True)
        except NotMergeableError as error:
            reason = f"the model goes another way by something else, too: {error}"
    call = decision.condition.call
    if call is None:
        raise CaptureError("a decision belongs to no call")
    guards = guards_of(call, decision, reason)
    if own.is_new:
        items = decision.condition.scope.items
        index = items.index(call)
        items[index : index + 1] = guards
    else:
        own.instead[call] = guards
    return own


def reason_of(error: Exception) -> str:
    """Return the reason why a way cannot be captured; the model's own error, if it raises one."""
    own = error.__cause__
    if own is not None and not isinstance(own, CaptureError):
        return f"the model raises {type(own).__name__}: {first_line(own)}"
    return f"this way of the model is not held, because it cannot be captured: {error}"


def guards_of(call: Call, decision: Decision, reason: str) -> list[Call]:
    """Return the calls that take the place of a decision: a guard of the run's way."""
    target = "layergraph.assume_truth" if call.target == TRUTH or reason else "layergraph.assume"
    place = call.value
    value = TracedValue(place.position, place.scope, wish_of(target))
    asked, kept = (call.args[0], []) if call.target == TRUTH else (place, [call])
    args = (asked, decision.answer, decision.where, *([reason] if reason else []))
    value.call = Call("function", target, args, {}, value, when=call.when)
    return [*kept, value.call]
