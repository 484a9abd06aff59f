"""Finding the loops of a model: it runs again on inputs of other lengths.

One run shows which calls repeat. A second run, on inputs that are longer, shows which of these
repetitions have more turns then: those are loops. A third run, on inputs that are as short as may
be, and the other two, are compared call by call with the record in which these are loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass

from layergraph.capturing import Example
from layergraph.errors import CaptureError
from layergraph.ir.values import leaves
from layergraph.torch2ir.tracing.module_call import (
    Call,
    ModuleCall,
    Trace,
    TracedValue,
    calls_in,
    inside_out,
    wish_of,
)
from layergraph_capture.loops.choice import NotAlikeError, loops_of
from layergraph_capture.loops.fit import NotFittedError, Size, fitted
from layergraph_capture.loops.lengths import Length, lengths
from layergraph_capture.loops.repeats import Forms, Item, repeats
from layergraph_capture.loops.roll import rolled
from layergraph_capture.loops.verify import ASSUME, LENGTH, OtherRunError, check_run
from layergraph_capture.loops.written import NotRollableError, Rolled

# A loop is believed from so many turns on. So many of them may differ from the others.
_LEAST_TURNS = 3
_BASE_TURNS = 5
_MANY_TURNS = 16
_MOST_SPECIAL_TURNS = 3
# The most runs on inputs of other lengths.
_MOST_RUNS = 12
_MOST_LEVELS = 8

RunOn = Callable[[Example], Trace]
"""Runs the model on another example."""

InMode = Callable[[Trace], AbstractContextManager[None]]
"""Makes the calls of a record those of the mode that is wanted, for a while."""


def _as_it_is(_: Trace) -> AbstractContextManager[None]:
    return nullcontext()


def _in_other_mode(trace: Trace) -> AbstractContextManager[None]:
    if trace.other is None:
        raise OtherRunError("a run does not tell what the other mode does")
    return trace.other.swapped()


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
    for count in counts:
        finder.vary(count)
    return finder.found()


@dataclass(frozen=True, slots=True, order=True)
class _Count:
    """A number in the record of a run that may be about turns.

    Attributes:
        number: the number.
        turns: the turns that there are.
    """

    number: int
    turns: int

    @property
    def each(self) -> int:
        """How much of the number one turn takes."""
        return self.number // self.turns if self.number % self.turns == 0 else 1


def _counts(trace: Trace) -> list[_Count]:
    """Return the numbers that guards and comparisons name, and that may be about turns."""
    named = {number for number in _named(trace) if number >= _LEAST_TURNS}
    if not named:
        return []
    found: dict[int, _Count] = {}
    for turns, steps in sorted(set(_repeated(trace)), reverse=True, key=lambda each: each[0]):
        for number in named:
            is_near = -1 <= number - turns <= _MOST_SPECIAL_TURNS
            if is_near or (number % turns == 0 and number // turns in steps):
                found.setdefault(number, _Count(number, turns))
    return sorted(found.values(), reverse=True)


def _repeated(trace: Trace) -> Iterator[tuple[int, frozenset[int]]]:
    """Yield, for each repetition that computes, its turns, and by how much integers grow in it."""
    forms = Forms()
    for scope in inside_out(trace.root):
        items = scope.items
        for each in repeats(forms.of(items), _longest(items)):
            starts = [(each.start, each)]
            starts += [(each.start + inner.start, inner) for inner in each.inside]
            for start, repeat in starts:
                turn = items[start : start + repeat.period]
                if any(map(_computes, turn)):
                    after = items[start + repeat.period :][: repeat.period]
                    yield repeat.turns, frozenset(_steps(turn, after))


def _computes(item: Item) -> bool:
    """Return whether an item is more than a read of a size or of a part."""
    if isinstance(item, ModuleCall):
        return True
    return item.value.number is None and not item.target.startswith(("operator.", "layergraph."))


def _steps(turn: Sequence[Item], after: Sequence[Item]) -> Iterator[int]:
    for one, other in zip(turn, after, strict=False):
        for number, next_number in zip(leaves(*one.args), leaves(*other.args), strict=False):
            if type(number) is int and type(next_number) is int:
                yield next_number - number


def _named(trace: Trace) -> Iterator[int]:
    for call in calls_in(trace.root):
        if call.target in (ASSUME, LENGTH) and type(call.args[1]) is int:
            yield call.args[1]
        elif call.target in _COMPARISONS:
            for each in call.args:
                if isinstance(each, TracedValue) and each.number is not None:
                    yield each.number


_COMPARISONS = frozenset(f"operator.{name}" for name in "lt le gt ge ne".split())


def _longest(items: Sequence[object]) -> int:
    """Return the most calls of a turn, of which there are at least two."""
    return len(items) // 2 + 1


@dataclass(frozen=True, slots=True, eq=False)
class _Varied:
    """Two runs on inputs of other lengths.

    Attributes:
        count: the number of turns of the user's example.
        length: the size that is varied.
        base: the run with a few turns.
        longer: the run with one more.
    """

    count: _Count
    length: Length
    base: Trace
    longer: Trace


class _Finder:
    def __init__(self, trace: Trace, example: Example, run: RunOn) -> None:
        self._trace = trace
        self._example = example
        self._run = run
        self._runs = 0
        self._varied: list[_Varied] = []

    def vary(self, count: _Count) -> None:
        """Run the model with more turns, if inputs can be made so."""
        ahead = max(0, _BASE_TURNS - count.turns)
        for length in lengths(self._example, count.number, count.each):
            if any(each.length.is_same_size(length) for each in self._varied):
                return
            base, longer = (self._run_with(length, ahead + turns) for turns in (0, 1))
            if base is None or longer is None:
                continue
            try:
                if any(loops_of([base, longer])):
                    self._varied.append(_Varied(count, length, base, longer))
                    return
            except NotAlikeError:
                continue

    def _run_with(self, length: Length, turns: int, more: int = 0) -> Trace | None:
        """Return the record of a run of another length, with the numbers of the turns."""
        if self._runs == _MOST_RUNS:
            return None
        self._runs += 1
        try:
            trace = self._run(length.call(self._example, turns, more))
        except (CaptureError, RuntimeError):
            return None
        return None if trace.decisions else trace

    def found(self) -> Trace | None:
        """Return the record with loops, or None."""
        if not self._varied:
            return None
        traces = [trace for each in self._varied for trace in (each.base, each.longer)]
        try:
            result = self._generalized(traces, _as_it_is)
            if result is None:
                return None
            first = traces[0].other
            result.other, result.is_other_refused = first, self._trace.is_other_refused
            if first is not None and first.differs:
                result.in_other_mode = self._generalized(traces, _in_other_mode)
                if result.in_other_mode is None:
                    return None
        except _Refused:
            return None
        return result

    def _generalized(self, traces: Sequence[Trace], mode: InMode) -> Trace | None:
        """Return the record with loops, compared with all runs; None if there are no loops."""
        with ExitStack() as stack:
            for trace in traces:
                stack.enter_context(mode(trace))
            written = _with_loops(traces)
            if written is None:
                return None
            error: Exception | None = None
            takes_parts = any(each.length.step > 1 for each in self._varied)
            for rounds_up in (True, False) if takes_parts else (True,):
                try:
                    return self._fitted(written, traces, mode, rounds_up=rounds_up)
                except (NotFittedError, OtherRunError) as refused:
                    error = error or refused
        raise error or NotFittedError

    def _fitted(
        self, written: Sequence[Rolled], traces: Sequence[Trace], mode: InMode, *, rounds_up: bool
    ) -> Trace:
        records = [rolled(each, {}, folds=True) for each in written]
        result = records[0]
        sizes = fitted(records, rounds_up=rounds_up)
        values = [each.value for each in sizes]
        for trace in traces:
            check_run(result, trace, values)
        for index, varied in enumerate(self._varied):
            of = [each for each in sizes if len(set(each.numbers[2 * index :][:2])) > 1]
            self._check_example(result, values, varied, mode)
            self._check_short(result, values, of, varied, mode)
            self._check_part(result, values, of, varied, mode)
            if result.uncertain:
                self._check_long(result, values, of, varied, mode)
        root = result.trace.root
        return Trace(root, result.trace.constants, result.trace.parameters)

    def _check_example(
        self, result: Rolled, values: Sequence[TracedValue], varied: _Varied, mode: InMode
    ) -> None:
        """Compare the record with a run on the example of the user."""
        if varied.count.turns >= _BASE_TURNS:
            return
        trace = self._run_with(varied.length, 0)
        if trace is None:
            raise OtherRunError("the example cannot be run again")
        with mode(trace):
            check_run(result, trace, values)

    def _check_short(
        self,
        result: Rolled,
        values: Sequence[TracedValue],
        sizes: Sequence[Size],
        varied: _Varied,
        mode: InMode,
    ) -> None:
        """Compare the record with a run of few turns, and guard that there are not less."""
        least = varied.count.turns
        for turns in range(1, varied.count.turns):
            trace = self._run_with(varied.length, turns - varied.count.turns)
            if trace is not None:
                with suppress(OtherRunError), mode(trace):
                    check_run(result, trace, values)
                    least = turns
                    break
        if least > 1:
            for each in sizes:
                self._guard_turns(result, each, "ge", varied, least)

    def _guard_turns(
        self, result: Rolled, size: Size, comparison: str, varied: _Varied, turns: int
    ) -> None:
        """Guard that a size is that of a number of turns at least, or at most."""
        index = 2 * self._varied.index(varied)
        base, longer = size.numbers[index : index + 2]
        number = base + (longer - base) * (turns - max(varied.count.turns, _BASE_TURNS))
        _guard(result, size.value, comparison, number, True)

    def _check_long(
        self,
        result: Rolled,
        values: Sequence[TracedValue],
        sizes: Sequence[Size],
        varied: _Varied,
        mode: InMode,
    ) -> None:
        """Compare the record with a run of many turns, and guard that there are not more."""
        # The run with one turn more than the base has been compared.
        most = max(varied.count.turns, _BASE_TURNS) + 1
        many = varied.count.turns + max(varied.count.turns, _MANY_TURNS)
        trace = self._run_with(varied.length, many - varied.count.turns)
        if trace is not None:
            with suppress(OtherRunError), mode(trace):
                check_run(result, trace, values)
                most = many
        for each in sizes:
            self._guard_turns(result, each, "le", varied, most)

    def _check_part(
        self,
        result: Rolled,
        values: Sequence[TracedValue],
        sizes: Sequence[Size],
        varied: _Varied,
        mode: InMode,
    ) -> None:
        """Compare the record with a run whose last turn is a part of one, or guard the size."""
        step = varied.length.step
        if step == 1:
            return
        trace = self._run_with(varied.length, 0, 1)
        if trace is not None:
            with mode(trace):
                check_run(result, trace, values)
            return
        for each in sizes:
            index = 2 * self._varied.index(varied)
            one, other = each.numbers[index : index + 2]
            if abs(other - one) > 1:
                _guard(result, each.value, "mod", abs(other - one), one % abs(other - one))


def _with_loops(traces: Sequence[Trace]) -> list[Rolled] | None:
    """Return the records with loops; None if there are none."""
    written = [Rolled(each) for each in traces]
    for level in range(_MOST_LEVELS):
        chosen = loops_of([each.trace for each in written])
        if not any(chosen):
            return written if level else None
        written = [rolled(each, loops) for each, loops in zip(written, chosen, strict=True)]
    return None


def _guard(result: Rolled, value: TracedValue, target: str, operand: int, expected: object) -> None:
    """Guard a size on which loops depend."""
    scope = value.scope
    found = _place(scope.items, value)
    if found is None:
        raise OtherRunError("the size of a loop is not in the module call where it came about")
    items, at = found
    asked = TracedValue(scope.start, scope, target)
    asked.call = Call("function", f"operator.{target}", (value, operand), {}, asked)
    guard = TracedValue(scope.start, scope, wish_of(ASSUME))
    where = "a loop that capture has seen with such sizes only"
    guard.call = Call("function", ASSUME, (asked, expected, where), {}, guard)
    result.glue |= {asked.call, guard.call}
    items[at + 1 : at + 1] = [asked.call, guard.call]


def _place(items: list[Item], value: TracedValue) -> tuple[list[Item], int] | None:
    """Return the items, perhaps of a body, and the index of the call that gives a value."""
    for index, item in enumerate(items):
        if isinstance(item, Call):
            if item.value is value:
                return items, index
            inside = (_place(body.items, value) for body in item.bodies)
            found = next(filter(None, inside), None)
            if found is not None:
                return found
    return None
