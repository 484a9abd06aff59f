"""The search for loops of a model, by runs on inputs of other lengths.

Two runs, one a turn longer than the other, show which repetitions get more turns: these are loops.
We compare the record with loops call by call with these runs, with the example, and with runs of
fewer and of many more turns, or of each number of turns around that of the example. Guards limit
the record to the lengths that the runs confirm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from enum import Enum, auto
from functools import partial

from layergraph.capturing import Example
from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.module_call import ModuleCall, Trace, wish_of
from layergraph_capture.loops.answers import (
    RunWith,
    ShorterWayError,
    Usual,
    as_numbers_say,
    bounded,
)
from layergraph_capture.loops.candidate import Candidate, InMode
from layergraph_capture.loops.choice import NotAlikeError, loops_of
from layergraph_capture.loops.counts import counts_of
from layergraph_capture.loops.fit import NotFittedError, fitted
from layergraph_capture.loops.item_counts import ItemCount, item_counts
from layergraph_capture.loops.item_uses import are_read_one_by_one
from layergraph_capture.loops.numbers import is_of_turns
from layergraph_capture.loops.other_runs import OtherRuns, repeats_as_often_with_other_sizes
from layergraph_capture.loops.other_ways import OtherWays
from layergraph_capture.loops.repeats import Item
from layergraph_capture.loops.roll import rolled
from layergraph_capture.loops.size_guards import SizesOf, Varied
from layergraph_capture.loops.turns import COUNT
from layergraph_capture.loops.variation import LONG, Variation
from layergraph_capture.loops.verify import OtherRunError, check_run
from layergraph_capture.loops.written import ASSUME, LOOP, NotRollableError, Rolled
from layergraph_capture.ways.plans import Plan

_LIKELY_LEAST_TURNS = 2
# The long run for the comparison has so many turns more.
_MANY_TURNS = 16
# Each item of a list may be a picture, so the runs of each number of items go less far.
_MORE_ITEMS = 6
# The most turns of a run that checks the use of lists.
_MOST_FOR_LISTS = 100
# If code may branch on the number of turns, we compare with a run of each number; the most turns of
# all these runs.
_MOST_TURNS = 400
_MOST_LEVELS = 8


def _as_it_is(_: Trace) -> AbstractContextManager[None]:
    return nullcontext()


def _in_other_mode(trace: Trace) -> AbstractContextManager[None]:
    if trace.other is None:
        raise OtherRunError("a run has no record of the other mode")
    return trace.other.swapped()


class _Part(Enum):
    """A partial last turn: a turn like the others, no turn, or refused."""

    TURN = auto()
    NONE = auto()
    REFUSED = auto()


_Refused = (NotAlikeError, NotRollableError, NotFittedError, OtherRunError)


def looped(trace: Trace, example: Example, run: RunWith) -> Trace | None:
    """Return a record in which the repetitions whose number depends on a size are loops.

    Args:
        trace: the record of a run.
        example: the example call of the run.
        run: runs the model on another call, with answers to its decisions.

    Returns:
        The record with loops; None if there are none.
    """
    return None if takes_functions(trace) else turned(partial(_looped, trace, example, run))


def turned(search: Callable[[Usual], Trace | None]) -> Trace | None:
    """Search with other usual answers, until the runs take the longer way of each decision.

    Args:
        search: searches with usual answers.
    """
    usual = Usual()
    while True:
        try:
            return search(usual)
        except ShorterWayError as error:
            if not usual.turn(error.place):
                return None


def takes_functions(trace: Trace) -> bool:
    """Return whether a run calls functions that are arguments of a call."""
    return any(scope.function for scope in trace.scopes)


def _looped(trace: Trace, example: Example, run_with: RunWith, usual: Usual) -> Trace | None:
    natural = trace

    def run(example: Example) -> Trace:
        return run_with(example, usual.plan())

    items = item_counts(example)
    places = [each.place for each in trace.decisions if not each.is_by_size]
    if places:
        decides_in_turns = len({*places}) < len(places)
        if not (items or decides_in_turns or counts_of(trace)):
            return None
        try:
            if decides_in_turns:
                natural = run_with(example, as_numbers_say)
            # A loop whose condition is a decision would not end on its first answer.
            run_with = bounded(run_with, natural.decisions)
            trace = run(example)
            if not decides_in_turns:
                natural = trace
        except (CaptureError, RuntimeError):
            return None
    counts = counts_of(trace)
    is_long = any(count.turns > LONG for count in counts)
    if not items and not (
        counts and (is_long or not repeats_as_often_with_other_sizes(trace, example, run))
    ):
        return None
    for is_short in (True, False) if is_long else (False,):
        runs = OtherRuns(example, run, lambda call: run_with(call, usual.otherwise()))
        variation = Variation(example, runs, is_short=is_short)
        variation.vary_items(items)
        variation.vary(counts)
        ways = OtherWays(usual, partial(run_longer, example, run_with), natural)
        found = Finder(trace, runs, variation.found, ways).found()
        if found is not None:
            return found
    return None


def run_longer(
    example: Example, run: RunWith, varied: Varied | None, more: int, plan: Plan
) -> Trace:
    """Run the model with more turns than the shorter run of a pair, or on the example."""
    turns = 0 if varied is None else varied.turns - varied.count.turns + more
    return run(varied.length.call(example, turns) if varied and turns else example, plan)


class Finder:
    """Finds the record with loops, or with both ways of each decision, that serves all runs.

    Args:
        trace: the record of the run on the example.
        runs: the runs on inputs of other lengths.
        varied: pairs of runs of different lengths.
        ways: adds the other ways of decisions.
    """

    def __init__(
        self, trace: Trace, runs: OtherRuns, varied: Sequence[Varied], ways: OtherWays
    ) -> None:
        self._trace = trace
        self._runs = runs
        self._ways = ways
        self._varied = varied

    def found(self) -> Trace | None:
        """Return the record with loops, or None."""
        every = self._varied
        items = [each for each in every if isinstance(each.length, ItemCount)]
        others = [each for each in every if each not in items]
        # If both are varied, the loops of one kind may be found without those of the other.
        for self._varied in (every, items, others) if items and others else (every,):
            self._runs.begin_comparison()
            found = self._found()
            if found is not None:
                return found
        return None

    def _found(self) -> Trace | None:
        if not self._varied:
            return None
        return self._of([trace for each in self._varied for trace in (each.base, each.longer)])

    def without_loops(self, base: Trace) -> Trace | None:
        """Return the record of a run with the other ways of its decisions, or None."""
        self._varied = ()
        return self._of([base])

    def _of(self, traces: Sequence[Trace]) -> Trace | None:
        try:
            result = self._generalized(traces, _as_it_is)
            if result is None:
                return None
            first = traces[0].other
            result.other, result.is_other_refused = first, self._trace.is_other_refused
            others = [trace.other for trace in (traces[0], *self._ways.traces)]
            if first is not None and any(each is None or each.differs for each in others):
                result.in_other_mode = self._generalized(traces, _in_other_mode)
                if result.in_other_mode is None:
                    return None
        except _Refused:
            return None
        return result

    def _generalized(self, traces: Sequence[Trace], mode: InMode) -> Trace | None:
        """Return the record with loops after the comparison with all runs; None without loops."""
        with ExitStack() as stack:
            for trace in traces:
                stack.enter_context(mode(trace))
            written = _with_loops(traces) if self._varied else [Rolled(each) for each in traces]
            if written is None:
                return None
            error: Exception | None = None
            takes_parts = any(each.length.step > 1 for each in self._varied)
            for part in _Part if takes_parts else (_Part.TURN,):
                try:
                    return self._fitted(written, traces, mode, part)
                except (NotFittedError, OtherRunError) as refused:
                    error = error or refused
        raise error or NotFittedError

    def _fitted(
        self, written: Sequence[Rolled], traces: Sequence[Trace], mode: InMode, part: _Part
    ) -> Trace:
        records = [rolled(each, {}, folds=True) for each in written]
        candidate = Candidate(records[0], fitted(records, rounds_up=part is _Part.TURN), mode)
        if are_read_one_by_one(candidate.record.trace.root):
            raise NotRollableError("code reads the items of a list one by one")
        for trace in traces:
            # The calls of these runs are already those of the mode.
            check_run(candidate.record, trace, candidate.values)
        for index, varied in enumerate(self._varied):
            loop = SizesOf(varied, candidate, index)
            self._check_example(candidate, varied)
            self._check_part(candidate, loop, part)
            least = max(trace.least_turns for trace in traces)
            if candidate.is_uncertain or not self._is_like_long(candidate, loop, least):
                self._check_each(candidate, loop)
            else:
                self._check_short(candidate, loop)
        record = candidate.record
        if self._ways.add(candidate, next(iter(self._varied), None), traces):
            record = rolled(record, {})
        trace = record.trace
        _finish(trace.root.items)
        return Trace(trace.root, trace.constants, trace.parameters)

    def _check_example(self, candidate: Candidate, varied: Varied) -> None:
        """Compare the record with a run on the example of the user."""
        # The first run has plain iteration numbers. If it is equal anyway, it needs no second run.
        if varied.count.turns == varied.turns or candidate.is_like(self._trace):
            return
        trace = self._runs.compare(varied.length, 0)
        if trace is None:
            raise OtherRunError("the example cannot be run again")
        candidate.compare(trace)

    def _check_short(self, candidate: Candidate, loop: SizesOf) -> None:
        """Compare the record with a run of few turns, and guard that least number."""
        own, first = loop.varied.count.turns, loop.varied.fewest
        # With fewer turns there is no loop, or no run has tried them.
        most, least = first - 1, own
        while most + 1 < least:
            # Nearly all loops work with one turn, and most others with two.
            is_likely = most < first + _LIKELY_LEAST_TURNS
            turns = most + 1 if is_likely else (most + least) // 2
            trace = self._runs.compare(loop.varied.length, turns - own)
            if trace is not None and candidate.is_like(trace):
                least = turns
            else:
                most = turns
        self._guard_least(candidate, loop, least)

    def _guard_least(self, candidate: Candidate, loop: SizesOf, least: int) -> None:
        """Guard the least number of turns; the last turn may be a partial one."""
        varied = loop.varied
        is_part = False
        if varied.length.step > 1:
            trace = self._runs.check(varied.length, least - 1 - varied.count.turns, 1)
            is_part = trace is not None and candidate.is_like(trace)
        loop.guard_turns("ge", least, is_part=is_part)

    def _is_like_long(self, candidate: Candidate, loop: SizesOf, least: int) -> bool:
        """Return whether the record makes the calls of a run of many turns, if there can be one.

        Only a long run reveals code such as ``values[-8:]``, which a list of three values passes
        whole.

        Args:
            candidate: the record.
            loop: the sizes.
            least: the turns that reveal every use of a list.
        """
        varied = loop.varied
        known = max(varied.turns + 1, varied.count.turns)
        wanted = max(varied.turns + _MANY_TURNS, min(least, _MOST_FOR_LISTS))
        if known < wanted:
            trace = self._runs.check(varied.length, wanted - varied.count.turns)
            if trace is not None:
                if not candidate.is_like(trace):
                    return False
                known = wanted
        return least <= known

    def _check_each(self, candidate: Candidate, loop: SizesOf) -> None:
        """Compare the record with a run of each number of turns, and guard that range.

        Code with its own counter may make other calls for one number of turns.
        """
        own, base, first = loop.varied.count.turns, loop.varied.turns, loop.varied.fewest
        # The example is already compared, and the two runs, which may be next to it.
        least, most = own, base + 1 if own <= base else own
        room = _MOST_TURNS
        more = _MORE_ITEMS if isinstance(loop.varied.length, ItemCount) else _MANY_TURNS
        goes = {-1: True, 1: True}
        while any(goes.values()):
            for step in [step for step, goes_on in goes.items() if goes_on]:
                turns = most + 1 if step > 0 else least - 1
                room -= max(turns, 0)
                goes[step] = (
                    first <= turns <= own + max(own, more)
                    and room >= 0
                    and self._is_like_with(candidate, loop, turns)
                )
                if goes[step]:
                    least, most = min(least, turns), max(most, turns)
        self._guard_least(candidate, loop, least)
        loop.guard_turns("le", most)

    def _is_like_with(self, candidate: Candidate, loop: SizesOf, turns: int) -> bool:
        trace = self._runs.check(loop.varied.length, turns - loop.varied.count.turns)
        return trace is not None and candidate.is_like(trace)

    def _check_part(self, candidate: Candidate, loop: SizesOf, part: _Part) -> None:
        """Compare the record with a run whose last turn is partial, or guard that no turn is."""
        if loop.varied.length.step == 1:
            return
        trace = None if part is _Part.REFUSED else self._runs.compare(loop.varied.length, 0, 1)
        if trace is None:
            loop.guard_whole_turns()
        else:
            candidate.compare(trace)


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
    """Remove calls that no graph has, and guard sizes that are equal in all runs."""
    items[:] = [item for item in items if not is_of_turns(item)]
    for item in [*items]:
        if isinstance(item, ModuleCall):
            _finish(item.items)
            continue
        if item.target == COUNT:
            item.target, item.value.wish = ASSUME, wish_of(ASSUME)
        for body in item.bodies:
            _finish(body.items)
            if item.target == LOOP and not (body.items or body.result):
                # Its turns only read numbers of turns.
                items.remove(item)
