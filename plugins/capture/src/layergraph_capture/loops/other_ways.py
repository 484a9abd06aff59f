"""The other ways of decisions inside and around loops.

All runs of the search for loops answer the decisions at one place alike, so that all turns of a
loop make the same calls. Then one more run for each decision of the record answers it otherwise in
one turn. The calls of this turn become the other way of the body.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.lines import Place
from layergraph.torch2ir.tracing.module_call import Call, Decision, Trace
from layergraph_capture.loops.answers import (
    Question,
    ShorterWayError,
    Usual,
    are_kept,
    states_of,
)
from layergraph_capture.loops.candidate import Candidate
from layergraph_capture.loops.graft import graft, own_way
from layergraph_capture.loops.size_guards import Varied
from layergraph_capture.loops.verify import OtherRunError
from layergraph_capture.loops.way_walks import (
    Answers,
    Asked,
    OtherWay,
    RefusedRunError,
    UnreadRankError,
    calls_behind,
    extent,
)
from layergraph_capture.loops.written import Rolled
from layergraph_capture.ways.explore import guards_of, reason_of
from layergraph_capture.ways.plans import Plan

RunLonger = Callable[[Varied | None, int, Plan], Trace]
"""A function that runs the model, with more turns than the shorter run of a pair, if any."""

# The key of the run that answers all questions as usual.
_USUAL: tuple[tuple[Question, ...], bool] = ((), False)
# The runs that confirm the ways: the turns more, and the begin of the pattern of answers.
# The last one has so many turns that code with a counter of its own is likely to differ.
_MIXED = ((0, 0), (0, 1), (1, 2), (11, 0))
_REFUSED = "this way of the model is not held, because it leads to another guard"
# The most decisions of a record, each of which costs one run.
_MOST_DECISIONS = 24


@dataclass(slots=True, eq=False)
class _Site:
    """A decision of the record.

    Attributes:
        asked: its place, and its turn in a run.
        decision: the decision of that run.
        question: its question in that run.
        but: the other questions that the run does not answer as usual.
        by_numbers: whether the numbers answer all other questions of the run.
        reason: the reason why the run of the other way fails if they do not.
    """

    asked: Asked
    decision: Decision
    question: Question
    but: tuple[Question, ...]
    by_numbers: bool = False
    reason: str = ""


class OtherWays:
    """Adds the other ways of decisions to a record, which may have loops.

    Args:
        usual: the answers of the runs that the record stands for.
        run: runs the model.
        natural: the run on the example of the user, with the answers of its numbers.
    """

    def __init__(self, usual: Usual, run: RunLonger, natural: Trace) -> None:
        self._usual = usual
        self._run_longer = run
        self._natural = natural
        self._made: dict[object, Trace] = {}
        self._varied: Varied | None
        self._entered: Sequence[Trace] = ()
        self._candidate: Candidate
        self._guarded: dict[Call, tuple[Decision, str]] = {}
        self._fixed: set[Place] = set()

    @property
    def traces(self) -> list[Trace]:
        """Return the runs so far."""
        return [*self._made.values()]

    def add(self, candidate: Candidate, varied: Varied | None, entered: Sequence[Trace]) -> bool:
        """Add the other ways to a record; return whether it makes decisions.

        Args:
            candidate: the record.
            varied: the runs that show its loops; None if it has none.
            entered: the runs that it was written from, whose calls are already those of the wanted
                mode.

        Raises:
            OtherRunError: a run differs in more than its ways.
            NotRollableError: a way cannot be written.
            ShorterWayError: the runs should answer a place otherwise.
        """
        base = entered[0]
        if not base.decisions:
            return False
        if self._made.get((0, _USUAL)) is not base:
            self._made = {(0, _USUAL): base}
        self._varied, self._entered = varied, entered
        self._candidate, self._guarded = candidate, {}
        known: set[Call] = set()
        sites = self._sites(base, (), known)
        waiting: list[_Site] = []
        while sites or waiting:
            if len(known) > _MOST_DECISIONS:
                raise OtherRunError("it makes very many decisions")
            # A run may need ways that are not written yet.
            site = sites.pop(0) if sites else waiting.pop(0)
            found = self._add(site, known)
            if isinstance(found, _Site):
                waiting.append(found)
            else:
                sites += found
        self._verify()
        for call, (decision, reason) in self._guarded.items():
            _replace(candidate.record, call, guards_of(call, decision, reason))
        return True

    def _mode(self, trace: Trace) -> AbstractContextManager[None]:
        return nullcontext() if trace in self._entered else self._candidate.mode(trace)

    def _sites(
        self,
        trace: Trace,
        but: tuple[Question, ...],
        known: set[Call],
        *,
        by_numbers: bool = False,
    ) -> list[_Site]:
        """Return the decisions of a run that are new in the record."""
        walk = Answers(self._candidate.record, self._candidate.values)
        with self._mode(trace):
            walk.compare(trace)
        decisions = {each.condition: each for each in trace.decisions}
        questions = _questions(trace)
        best: dict[Call, Asked] = {}
        for asked in walk.found:
            if asked.site not in known and (
                asked.site not in best or _fitness(asked) > _fitness(best[asked.site])
            ):
                best[asked.site] = asked
        known.update(best)
        return [
            _Site(
                each, decisions[each.decided], questions[decisions[each.decided]], but, by_numbers
            )
            for each in best.values()
        ]

    def _add(self, site: _Site, known: set[Call]) -> list[_Site] | _Site:
        """Add the other way of a decision; return the decisions in it, or what to try later."""
        but = (*site.but, site.question)
        answer = site.decision.answer
        plan = self._usual.plan(but, by_numbers=bool(site.reason))
        try:
            trace = self._run(0, plan, (but, bool(site.reason)))
        except (CaptureError, RuntimeError) as error:
            if site.reason:
                return self._guard(site)
            return replace(site, reason=reason_of(error))
        self._check_states(trace, site)
        questions = {question: each for each, question in _questions(trace).items()}
        other = questions.get(site.question)
        if other is None or other.answer is answer:
            if site.reason:
                return self._guard(site)
            raise OtherRunError("the run does not come to the decision")
        try:
            with self._mode(trace):
                self._graft(site, trace, other)
        except OtherRunError as error:
            is_short = calls_behind(site.decision) < calls_behind(other)
            if is_short or isinstance(error, UnreadRankError):
                raise ShorterWayError(site.question[0]) from None
            if site.reason:
                return self._guard(site)
            if isinstance(error, RefusedRunError):
                return replace(site, reason=_REFUSED)
            raise
        return self._sites(trace, but, known, by_numbers=bool(site.reason))

    def _check_states(self, trace: Trace, site: _Site) -> None:
        """Raise if the other way of a decision changes the plain state in which later turns begin.

        Code might branch by this state. The state of the next turn may differ: a variable keeps its
        value until the turn sets it again.
        """
        before = states_of(self._of(site))
        for line, loops in states_of(trace).items():
            if not all(map(are_kept, loops)) and loops != before.get(line):
                raise OtherRunError("a way changes the plain state of the code")

    def _of(self, site: _Site) -> Trace:
        """Return the run in which a decision was found."""
        plan = self._usual.plan(site.but, by_numbers=site.by_numbers)
        return self._run(0, plan, (site.but, site.by_numbers))

    def _guard(self, site: _Site) -> list[_Site]:
        self._guarded[site.asked.site] = site.decision, site.reason
        return []

    def _graft(self, site: _Site, trace: Trace, other: Decision) -> None:
        """Write the way of a run into the record."""
        record, values = self._candidate.record, self._candidate.values
        asked = self._asked_again(site)
        own, there = extent(asked, other)
        mine, kept = own_way(asked, own, record)
        if not mine and there:
            raise ShorterWayError(site.question[0])
        way = OtherWay(record, values, asked, own, there, kept)
        way.find(trace, other.condition)
        graft(record, asked, own, way, answer=site.decision.answer)

    def _asked_again(self, site: _Site) -> Asked:
        """Return the place of a decision in the record as it is now."""
        trace = self._of(site)
        walk = Answers(self._candidate.record, self._candidate.values)
        with self._mode(trace):
            walk.compare(trace)
        return next(each for each in walk.found if each.decided is site.asked.decided)

    def _run(self, more: int, plan: Plan, key: object) -> Trace:
        if (more, key) not in self._made:
            self._made[more, key] = self._run_longer(self._varied, more, plan)
        return self._made[more, key]

    # --- verification ---

    def _verify(self) -> None:
        """Compare the record with runs in which other turns go other ways.

        Raises:
            OtherRunError: a run makes other calls, or none can be compared.
        """
        self._compare(self._natural)
        self._fixed = {each.place for each, _ in self._guarded.values()}
        open_ones = [each for each in self._usual.answers if each not in self._fixed]
        mixed = [self._confirms(open_ones, more, shift) for more, shift in _MIXED]
        # With many other answers at once, a model may raise an error.
        if open_ones and not any(mixed):
            single = [self._confirms([each], more, more) for each in open_ones for more in (0, 1)]
            if not any(single):
                raise OtherRunError("no run confirms the ways")

    def _confirms(self, places: Collection[Place], more: int, shift: int) -> bool:
        """Compare with a run that answers at some places otherwise in every other turn or so.

        Args:
            places: the places; the numbers answer the others that have two ways.
            more: the turns more than those of the shorter run.
            shift: the begin of the pattern of answers.

        Returns:
            Whether it has been compared: False if it fails, or if a guard refuses it.
        """

        def mixed(place: Place, number: int, answer: bool) -> bool:
            usual = self._usual.answers.setdefault(place, answer)
            if place in places:
                return usual is not _is_odd(number + shift)
            return usual if place in self._fixed else answer

        try:
            self._compare(self._run(more, mixed, (*places, shift)))
        except (CaptureError, RuntimeError, RefusedRunError):
            return False
        return True

    def _compare(self, trace: Trace) -> None:
        with self._mode(trace):
            walk = Answers(self._candidate.record, self._candidate.values)
            walk.compare(trace)
        answers = {each.condition: each.answer for each in trace.decisions}
        for asked in walk.found:
            guarded = self._guarded.get(asked.site)
            if guarded is not None and guarded[0].answer is not answers[asked.decided]:
                raise OtherRunError("the example takes a way that is not held")


def _is_odd(number: int) -> bool:
    """Return whether a number has an odd number of binary ones: 0, 1, 1, 0, 1, 0, 0, 1 …."""
    return number.bit_count() % 2 == 1


def _fitness(asked: Asked) -> tuple[int, int, int]:
    """Return how well a turn shows what is carried into it and out of it."""
    inner = sum(1 <= turn < count - 1 for turn, count in asked.turns)
    numbers = [turn for turn, _ in asked.turns]
    return inner, len(set(numbers)), -sum(numbers) if inner else 0


def _questions(trace: Trace) -> dict[Decision, Question]:
    """Return the questions of the decisions of a run."""
    before: Counter[Place] = Counter()
    found: dict[Decision, Question] = {}
    for each in trace.decisions:
        found[each] = each.place, before[each.place]
        before[each.place] += 1
    return found


def _replace(rolled: Rolled, call: Call, calls: Sequence[Call]) -> None:
    """Replace a call of a record."""
    pending = [rolled.trace.root.items]
    while pending:
        items = pending.pop()
        if call in items:
            at = items.index(call)
            items[at : at + 1] = calls
            return
        for item in items:
            if isinstance(item, Call):
                pending += [body.items for body in item.bodies]
            else:
                pending.append(item.items)
