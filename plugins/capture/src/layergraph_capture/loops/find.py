"""Finding the loops of a model: it runs again on inputs of other lengths.

Two runs, one with a turn more than the other, show which repetitions have more turns then: those
are loops. The record in which they are loops is compared call by call with these runs, with the
example, and with runs of fewer and of many more turns, or of each number of turns around that of
the example. A guard limits it to what the runs have shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass

from layergraph.capturing import Example
from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.module_call import ModuleCall, Trace, wish_of
from layergraph_capture.loops.candidate import Candidate, InMode
from layergraph_capture.loops.choice import NotAlikeError, loops_of
from layergraph_capture.loops.counts import Count, counts_of, turns_in
from layergraph_capture.loops.fit import NotFittedError, fitted
from layergraph_capture.loops.lengths import Length, lengths
from layergraph_capture.loops.numbers import is_of_turns
from layergraph_capture.loops.repeats import Item
from layergraph_capture.loops.roll import rolled
from layergraph_capture.loops.size_guards import guard_size
from layergraph_capture.loops.turns import COUNT
from layergraph_capture.loops.verify import OtherRunError, check_run
from layergraph_capture.loops.written import ASSUME, NotRollableError, Rolled

# The turns of the shorter of the two runs that show which repetitions are loops.
_BASE_TURNS = 5
_LIKELY_LEAST_TURNS = 2
# If the example has more turns, these two runs are no longer for it: a long run takes its time.
_LONG = 32
# A loop is compared with a run of so many turns more.
_MANY_TURNS = 16
# A run is not made longer than that to see what code does with lists.
_MOST_FOR_LISTS = 100
# Where the number of turns itself may decide, it is compared with runs of each number of turns,
# which have so many turns in all.
_MOST_TURNS = 400
# The most runs on inputs of other lengths.
_MOST_RUNS = 12
_MOST_LEVELS = 8

RunOn = Callable[[Example], Trace]
"""Runs the model on another example."""


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
    counts = counts_of(trace)
    if not counts:
        return None
    is_long = any(count.turns > _LONG for count in counts)
    for is_short in (True, False) if is_long else (False,):
        finder = _Finder(trace, example, run, is_short=is_short)
        for count in counts:
            finder.vary(count)
        found = finder.found()
        if found is not None:
            return found
    return None


@dataclass(frozen=True, slots=True, eq=False)
class _Varied:
    """Two runs on inputs of other lengths.

    Attributes:
        count: the number of turns of the user's example.
        turns: the number of turns of the shorter run.
        length: the size that is varied.
        base: the shorter run.
        longer: the run with one more.
    """

    count: Count
    turns: int
    length: Length
    base: Trace
    longer: Trace

    @property
    def fewest(self) -> int:
        """The turns where the size is 0; they are counted from those of the example."""
        return self.count.turns - self.length.size // self.length.step


class _Finder:
    def __init__(self, trace: Trace, example: Example, run: RunOn, *, is_short: bool) -> None:
        self._is_short = is_short
        self._trace = trace
        self._example = example
        self._run = run
        self._runs = 0
        self._own: Trace | None = None
        self._varied: list[_Varied] = []

    def vary(self, count: Count) -> None:
        """Run the model with other numbers of turns, if inputs can be made so."""
        is_short = self._is_short and count.turns > _LONG
        base_turns = _BASE_TURNS if is_short else max(count.turns, _BASE_TURNS)
        ahead = base_turns - count.turns
        for length in lengths(self._example, count.number, count.each):
            if any(each.length.is_same_size(length) for each in self._varied):
                return
            base = self._run_with(length, ahead) if ahead else self._own_run(length)
            if base is None or (ahead > 0 and self._repeats_as_own(base, length)):
                continue
            longer = self._run_with(length, ahead + 1)
            if longer is None:
                continue
            try:
                if any(loops_of([base, longer])):
                    self._varied.append(_Varied(count, base_turns, length, base, longer))
                    self._own = None  # each pair of runs has its own
                    return
            except NotAlikeError:
                continue

    def _repeats_as_own(self, base: Trace, length: Length) -> bool:
        """Return whether a longer run repeats nothing more often: then the size is another one."""
        own = self._own_run(length)
        return own is not None and turns_in(own) == turns_in(base)

    def _own_run(self, length: Length) -> Trace | None:
        """Return the record of a run on the example; of whatever length, it is the same."""
        if self._own is None:
            self._own = self._run_with(length, 0)
        return self._own

    def _run_with(self, length: Length, turns: int, more: int = 0) -> Trace | None:
        """Return the record of a run of another length, with the numbers of the turns."""
        if self._runs == _MOST_RUNS:
            return None
        self._runs += 1
        return self._run_to_check(length, turns, more)

    def _run_to_check(self, length: Length, turns: int, more: int = 0) -> Trace | None:
        """Return the record of such a run, however many there were."""
        try:
            is_own = turns == more == 0
            trace = self._run(self._example if is_own else length.call(self._example, turns, more))
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
        candidate = Candidate(records[0], fitted(records, rounds_up=rounds_up), mode)
        for trace in traces:
            # Their calls are those of the mode already.
            check_run(candidate.record, trace, candidate.values)
        for index, varied in enumerate(self._varied):
            loop = _SizesOf(varied, candidate, index)
            self._check_example(candidate, varied)
            self._check_part(candidate, loop)
            least = max(trace.least_turns for trace in traces)
            if candidate.is_uncertain or not self._is_like_long(candidate, loop, least):
                self._check_each(candidate, loop)
            else:
                self._check_short(candidate, loop)
        trace = candidate.record.trace
        _finish(trace.root.items)
        return Trace(trace.root, trace.constants, trace.parameters)

    def _check_example(self, candidate: Candidate, varied: _Varied) -> None:
        """Compare the record with a run on the example of the user."""
        # The first run does not number its turns. If it is alike even so, no other is needed.
        if varied.count.turns == varied.turns or candidate.is_like(self._trace):
            return
        trace = self._run_with(varied.length, 0)
        if trace is None:
            raise OtherRunError("the example cannot be run again")
        candidate.compare(trace)

    def _check_short(self, candidate: Candidate, loop: _SizesOf) -> None:
        """Compare the record with a run of few turns, and guard that there are not less."""
        own, first = loop.varied.count.turns, loop.varied.fewest
        # Fewer turns than that are no loop, or have not been tried.
        most, least = first - 1, own
        while most + 1 < least:
            # Nearly all loops may have one turn, and most others two.
            is_likely = most < first + _LIKELY_LEAST_TURNS
            turns = most + 1 if is_likely else (most + least) // 2
            trace = self._run_with(loop.varied.length, turns - own)
            if trace is not None and candidate.is_like(trace):
                least = turns
            else:
                most = turns
        self._guard_least(candidate, loop, least)

    def _guard_least(self, candidate: Candidate, loop: _SizesOf, least: int) -> None:
        """Guard the least number of turns, of which the last one may be a part."""
        varied = loop.varied
        is_part = False
        if varied.length.step > 1:
            trace = self._run_to_check(varied.length, least - 1 - varied.count.turns, 1)
            is_part = trace is not None and candidate.is_like(trace)
        loop.guard_turns("ge", least, is_part=is_part)

    def _is_like_long(self, candidate: Candidate, loop: _SizesOf, least: int) -> bool:
        """Return whether the record does what a run of many turns does, if there can be one.

        A list of three values is its own last eight: code that takes these is seen here only.

        Args:
            candidate: the record.
            loop: the sizes.
            least: the turns that show all that code does with lists.
        """
        varied = loop.varied
        known = max(varied.turns + 1, varied.count.turns)
        wanted = max(varied.turns + _MANY_TURNS, min(least, _MOST_FOR_LISTS))
        if known < wanted:
            trace = self._run_to_check(varied.length, wanted - varied.count.turns)
            if trace is not None:
                if not candidate.is_like(trace):
                    return False
                known = wanted
        return least <= known

    def _check_each(self, candidate: Candidate, loop: _SizesOf) -> None:
        """Compare the record with a run of each number of turns, and guard that it is one of them.

        Code that counts by itself may do something else for one number of turns.
        """
        own, base, first = loop.varied.count.turns, loop.varied.turns, loop.varied.fewest
        # The example has been compared, and two runs that may be next to it.
        least, most = own, base + 1 if own <= base else own
        room = _MOST_TURNS
        goes = {-1: True, 1: True}
        while any(goes.values()):
            for step in [step for step, goes_on in goes.items() if goes_on]:
                turns = most + 1 if step > 0 else least - 1
                room -= max(turns, 0)
                goes[step] = (
                    first <= turns <= own + max(own, _MANY_TURNS)
                    and room >= 0
                    and self._is_like_with(candidate, loop, turns)
                )
                if goes[step]:
                    least, most = min(least, turns), max(most, turns)
        self._guard_least(candidate, loop, least)
        loop.guard_turns("le", most)

    def _is_like_with(self, candidate: Candidate, loop: _SizesOf, turns: int) -> bool:
        trace = self._run_to_check(loop.varied.length, turns - loop.varied.count.turns)
        return trace is not None and candidate.is_like(trace)

    def _check_part(self, candidate: Candidate, loop: _SizesOf) -> None:
        """Compare the record with a run whose last turn is a part of one, or guard the size."""
        if loop.varied.length.step == 1:
            return
        trace = self._run_with(loop.varied.length, 0, 1)
        if trace is None:
            loop.guard_whole_turns()
        else:
            candidate.compare(trace)


class _SizesOf:
    """The sizes that follow one size of the inputs.

    Args:
        varied: the two runs in which that one differs.
        candidate: the record with loops.
        index: the number of these runs among all that are varied.
    """

    def __init__(self, varied: _Varied, candidate: Candidate, index: int) -> None:
        self.varied = varied
        self._record = candidate.record
        # By size: what it is in the base, and with one turn more.
        pairs = {each: each.numbers[2 * index :][:2] for each in candidate.sizes}
        self._sizes = {each: pair for each, pair in pairs.items() if pair[0] != pair[1]}

    def guard_turns(self, comparison: str, turns: int, *, is_part: bool = False) -> None:
        """Guard that the sizes are those of a number of turns at least, or at most.

        Args:
            comparison: ``ge`` or ``le``.
            turns: the number.
            is_part: whether the last turn may be a part of one.
        """
        for size, (base, longer) in self._sizes.items():
            step = longer - base
            number = base + step * (turns - self.varied.turns)
            if is_part:
                number -= step - 1 if step > 0 else step + 1
            # A size that shrinks gives more turns.
            target = comparison if step > 0 else {"ge": "le", "le": "ge"}[comparison]
            # No size is negative, and a loop says by itself that it has less than no turns.
            if target == "le" or number > 0:
                guard_size(self._record, size.value, target, number, True)

    def guard_whole_turns(self) -> None:
        """Guard that no turn is a part of one."""
        for size, (base, longer) in self._sizes.items():
            step = abs(longer - base)
            if step > 1:
                guard_size(self._record, size.value, "mod", step, base % step)


def _with_loops(traces: Sequence[Trace]) -> list[Rolled] | None:
    """Return the records with loops; None if there are none."""
    written = [Rolled(each) for each in traces]
    for level in range(_MOST_LEVELS):
        chosen = loops_of([each.trace for each in written])
        if not any(chosen):
            return written if level else None
        written = [rolled(each, loops) for each, loops in zip(written, chosen, strict=True)]
    return None


def _finish(items: list[Item]) -> None:
    """Replace what only records have: a size that is the same in each run is guarded."""
    items[:] = [item for item in items if not is_of_turns(item)]
    for item in items:
        if isinstance(item, ModuleCall):
            _finish(item.items)
            continue
        if item.target == COUNT:
            item.target, item.value.wish = ASSUME, wish_of(ASSUME)
        for body in item.bodies:
            _finish(body.items)
