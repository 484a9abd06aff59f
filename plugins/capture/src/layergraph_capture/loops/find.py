"""Finding the loops of a model: it runs again on inputs of other lengths.

One run shows which calls repeat. A second run, on inputs that are longer, shows which of these
repetitions have more turns then: those are loops. A third run, on inputs that are as short as may
be, and the other two, are compared call by call with the record in which these are loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from layergraph.capturing import Example
from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.module_call import (
    Call,
    Trace,
    TracedValue,
    calls_in,
    inside_out,
    wish_of,
)
from layergraph_capture.loops.choice import NotAlikeError, loops_of
from layergraph_capture.loops.fit import NotFittedError, Size, fitted
from layergraph_capture.loops.lengths import Length, lengths
from layergraph_capture.loops.repeats import Forms, repeats
from layergraph_capture.loops.roll import NotRollableError, Rolled, rolled
from layergraph_capture.loops.verify import ASSUME, OtherRunError, check_run

_LENGTH = "layergraph.assume_length"
# A loop is believed from so many turns on. So many of them may differ from the others.
_LEAST_TURNS = 3
_MOST_SPECIAL_TURNS = 3
# The most runs on inputs of other lengths.
_MOST_RUNS = 8
_MOST_LEVELS = 8

RunOn = Callable[[Example], Trace]
"""Runs the model on another example."""

_Refused = (NotAlikeError, NotRollableError, NotFittedError, OtherRunError)


def looped(trace: Trace, example: Example, run: RunOn) -> Trace | None:
    """Return a record in which the repetitions that follow a size are loops.

    Args:
        trace: the record of a run. It decides nothing by the numbers of its inputs.
        example: the call that gave it.
        run: runs the model on another call.

    Returns:
        The record with loops; None if there are none.
    """
    counts = _counts(trace)
    if not counts:
        return None
    finder = _Finder(trace, example, run)
    for turns in counts:
        finder.vary(turns)
    return finder.found()


def _counts(trace: Trace) -> list[int]:
    """Return the numbers that guards name, and that are about the turns of a repetition."""
    named = {
        call.args[1]
        for call in calls_in(trace.root)
        if call.target in (ASSUME, _LENGTH) and type(call.args[1]) is int
    }
    named = {number for number in named if number >= _LEAST_TURNS}
    if not named:
        return []
    forms = Forms()
    turns: set[int] = set()
    for scope in inside_out(trace.root):
        for each in repeats(forms.of(scope.items), _longest(scope.items, named)):
            turns |= {each.turns, *[inner.turns for inner in each.inside]}
    found = {each + special for each in turns for special in range(-1, _MOST_SPECIAL_TURNS + 1)}
    return sorted(named & found, reverse=True)


def _longest(items: Sequence[object], counts: set[int]) -> int:
    """Return the most calls of a turn, given the numbers of turns that there may be."""
    return len(items) // max(min(counts) - _MOST_SPECIAL_TURNS, 1) + 1


@dataclass(frozen=True, slots=True, eq=False)
class _Varied:
    """A run on inputs of another length."""

    length: Length
    turns: int
    trace: Trace


class _Finder:
    def __init__(self, trace: Trace, example: Example, run: RunOn) -> None:
        self._trace = trace
        self._example = example
        self._run = run
        self._runs = 0
        # The same run, with the numbers of the turns.
        self._base: Trace | None = None
        self._varied: list[_Varied] = []

    def vary(self, turns: int) -> None:
        """Run the model with one turn more, if the inputs can be made so."""
        for length in lengths(self._example, turns):
            if self._base is None:
                self._base = self._run_with(length, 0)
            trace = self._run_with(length, 1)
            if trace is None or self._base is None:
                continue
            try:
                if any(loops_of([self._base, trace])):
                    self._varied.append(_Varied(length, turns, trace))
                    return
            except NotAlikeError:
                continue

    def _run_with(self, length: Length, turns: int) -> Trace | None:
        if self._runs == _MOST_RUNS:
            return None
        self._runs += 1
        try:
            trace = self._run(length.call(self._example, turns))
        except (CaptureError, RuntimeError):
            return None
        return None if trace.decisions else trace

    def found(self) -> Trace | None:
        """Return the record with loops, or None."""
        if not self._varied or self._base is None:
            return None
        traces = [self._base, *[each.trace for each in self._varied]]
        try:
            result = self._checked(traces)
            if result is None:
                return None
            others = [each.other for each in traces]
            first = others[0]
            result.other, result.is_other_refused = first, self._trace.is_other_refused
            if first is not None and first.differs:
                with ExitStack() as stack:
                    for each in others:
                        if each is None:
                            return None
                        stack.enter_context(each.swapped())
                    result.in_other_mode = self._checked(traces, in_other_mode=True)
                if result.in_other_mode is None:
                    return None
        except _Refused:
            return None
        return result

    def _checked(self, traces: Sequence[Trace], *, in_other_mode: bool = False) -> Trace | None:
        """Return the record with loops, compared with all runs; None if there are no loops."""
        written = [Rolled(each, set()) for each in traces]
        for _ in range(_MOST_LEVELS):
            chosen = loops_of([each.trace for each in written])
            if not any(chosen):
                break
            written = [rolled(each, loops) for each, loops in zip(written, chosen, strict=True)]
        else:
            return None
        if written[0].trace is traces[0]:
            return None
        written = [rolled(each, {}, folds=True) for each in written]
        result = written[0]
        sizes = fitted(written)
        for number, trace in enumerate(traces):
            check_run(result, trace, {each.value: each.numbers[number] for each in sizes})
        for varied in self._varied:
            self._check_short(result, sizes, varied, in_other_mode=in_other_mode)
        root = result.trace.root
        return Trace(root, result.trace.constants, result.trace.parameters)

    def _check_short(
        self, result: Rolled, sizes: Sequence[Size], varied: _Varied, *, in_other_mode: bool
    ) -> None:
        """Compare the record with a run of few turns, and guard that there are not less."""
        index = self._varied.index(varied) + 1
        of = [each for each in sizes if each.numbers[index] != each.numbers[0]]
        for turns in range(1, _LEAST_TURNS + 1):
            if turns >= varied.turns:
                return
            trace = self._run_with(varied.length, turns - varied.turns)
            if trace is None or (in_other_mode and trace.other is None):
                continue
            numbers = {each.value: each.numbers[0] for each in sizes}
            for each in of:
                step = each.numbers[index] - each.numbers[0]
                numbers[each.value] = each.numbers[0] + step * (turns - varied.turns)
            with ExitStack() as stack:
                if in_other_mode and trace.other is not None:
                    stack.enter_context(trace.other.swapped())
                try:
                    check_run(result, trace, numbers)
                except OtherRunError:
                    continue
            if turns > 1:
                for each in of:
                    _guard_least(each.value, numbers[each.value])
            return
        raise OtherRunError("no short run is like the others")


def _guard_least(value: TracedValue, least: int) -> None:
    """Guard that a size is not smaller than in the shortest run."""
    scope = value.scope
    at = next(
        (n for n, item in enumerate(scope.items) if isinstance(item, Call) and item.value is value),
        None,
    )
    if at is None:
        raise OtherRunError("the size of a loop is inside of a loop")
    compared = TracedValue(scope.start, scope, "ge")
    compared.call = Call("function", "operator.ge", (value, least), {}, compared)
    guard = TracedValue(scope.start, scope, wish_of(ASSUME))
    where = "a loop, which was not captured with less turns"
    guard.call = Call("function", ASSUME, (compared, True, where), {}, guard)
    scope.items[at + 1 : at + 1] = [compared.call, guard.call]
