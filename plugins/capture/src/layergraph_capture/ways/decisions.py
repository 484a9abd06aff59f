"""The decisions of a run: questions about numbers whose answers select the code that runs."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import NoReturn

from layergraph.control_flow.choices import truth
from layergraph.errors import CaptureError
from layergraph.ir import Value
from layergraph.ir.values import leaves, map_leaves
from layergraph.torch2ir.code_owners import is_of_user
from layergraph.torch2ir.tracing.called_functions import RESULTS_BY_SIZES, draws
from layergraph.torch2ir.tracing.lines import Place, code_place
from layergraph.torch2ir.tracing.module_call import (
    Decision,
    StateRead,
    TracedValue,
)
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.symbolic.picking import picks
from layergraph_capture.trackers.flags import keys_read
from layergraph_capture.trackers.guards import Guards
from layergraph_capture.trackers.origins import origins
from layergraph_capture.ways.plans import Plan
from layergraph_capture.ways.value_numbers import ValueNumbers, named_value

TRUTH = f"layergraph.{truth.__name__}"
ITEM = "torch.Tensor.item"
# The most decisions of a run; later questions become guards.
MAX_DECISIONS = 16
# The most decisions by sizes among them: comparisons with 1, and branches by equal numbers.
MAX_BY_SIZES = 1
MAX_BRANCHES = 2
# The most questions of a run with forced answers, which might never end.
MAX_QUESTIONS = 10_000
OVER = (
    f"the model makes more than {MAX_DECISIONS} decisions by numbers, and this one has only the "
    "way of the example; capture the model with this input"
)

# A value, and the one that is computed from it.
_Read = tuple[Value, TracedValue | None]


class Decisions:
    """Answers the questions of a run, by the numbers or with forced answers.

    Args:
        recorder: records the questions.
        guards: records questions with one way as guards.
        answers: the forced answers of the first questions; the numbers answer the others.
        plan: answers all questions about numbers instead.
        flags: the keys of the buffers that the model changes and asks about.

    Attributes:
        made: the decisions so far.
        asked: the keys of the tensors of the model about which guards have asked.
        bodies: the number of function arguments of torch that are running; inside, each question is
            a guard.
        is_in_region: whether the model's code is inside its own grad-mode region.
    """

    def __init__(
        self,
        recorder: Recorder,
        guards: Guards,
        answers: Sequence[bool],
        plan: Plan | None = None,
        flags: frozenset[str] = frozenset(),
    ) -> None:
        self._recorder = recorder
        self._guards = guards
        self._answers = answers
        self._plan = plan
        self._flags = flags
        self._planned: Counter[Place] = Counter()
        self._asked = 0
        self._known: dict[str, bool] = {}
        # The answers to comparisons of numbers, by their origins. A replay repeats these.
        self._compared: dict[Hashable, bool] = {}
        self._numbers = ValueNumbers(guards)
        # Values that follow inputs, and those that do not unless code has changed tensors in place.
        self._following: set[TracedValue] = set()
        self._fixed: set[TracedValue] = set()
        # The answers to each question, in order, for a replay of the run.
        self._said: dict[tuple[str, str], list[bool]] = {}
        self._replayed: dict[tuple[str, str], list[bool]] | None = None
        self._diverge: Callable[[], NoReturn]
        self._by_sizes = 0
        self._branches = 0
        self._has_more_branches = False
        self.bodies = 0
        self.is_in_region = False
        self.made: list[Decision] = []
        self.asked: set[str] = set()

    def follow(self, answers: Sequence[bool]) -> None:
        """Force the answers of the first decisions, before the run begins."""
        self._answers = answers

    def truth(self, value: Value, answer: bool) -> bool:
        """Answer a question about the truth value of a tensor of one number."""
        if not self._follows_inputs(value):
            self.asked |= keys_read(value)
            self._guards.expect_truth(value, answer)
            return answer
        return self._decided(TRUTH, (value,), {}, answer)

    def result(
        self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value], answer: bool
    ) -> bool:
        """Answer a question by the bool result of a function."""
        if not self._follows_inputs((args, kwargs)):
            self.asked |= keys_read((args, kwargs))
            self._guards.expect_call(name, args, answer, kwargs)
            return answer
        return self._decided(name, args, kwargs, answer)

    def mode(self, name: str, answer: bool) -> bool:
        """Answer a question about a mode of torch."""
        if self.bodies:
            self._guards.expect_call(name, (), answer)
            return answer
        return self._decided(name, (), {}, answer)

    def comparison(
        self,
        origin: Hashable,
        name: str,
        given: Callable[[], tuple[Value, ...]],
        answer: bool,
        *,
        is_branch: bool = False,
    ) -> bool | None:
        """Answer a comparison of numbers; None if it is a guard, and no decision.

        Args:
            origin: a key that is equal for comparisons of equal numbers.
            name: the function that compares.
            given: returns its arguments, which records them.
            answer: its result.
            is_branch: whether it compares sizes that are equal in the example.
        """
        if self.bodies:
            return None
        if origin in self._compared or self._replayed is not None:
            # No change in place reaches numbers that the run has read before it.
            return self._compared.get(origin)
        args = given()
        is_by_size = is_branch or not self._follows_inputs(args)
        if is_by_size and self._question(name, args, {}) not in self._known:
            if is_branch:
                is_over = self._branches == MAX_BRANCHES
                self._has_more_branches |= is_over
            else:
                is_over = self._by_sizes == MAX_BY_SIZES
                self._by_sizes += not is_over
            if is_over or len(self.made) == MAX_DECISIONS:
                return None
        answer = self._decided(name, args, {}, answer, is_by_size=is_by_size, is_branch=is_branch)
        self._compared[origin] = answer
        return answer

    def is_known(self, name: str, args: tuple[Value, ...]) -> bool:
        """Return whether the run has already decided by such a comparison."""
        return self._question(name, args, {}) in self._known

    def settled(self) -> list[Decision]:
        """Return the decisions of the run that has ended.

        A few of many branches by sizes serve hardly any other input, so then all are guards.
        """
        if not self._has_more_branches:
            return self.made
        return [replace(each, is_guard=each.is_branch) for each in self.made]

    def _decided(
        self,
        name: str,
        args: tuple[Value, ...],
        kwargs: dict[str, Value],
        answer: bool,
        *,
        is_by_size: bool = False,
        is_branch: bool = False,
    ) -> bool:
        key = self._key(name, args, kwargs)
        if self._replayed is not None:
            return self._answered_before(key)
        answer = self._answer_to(
            name, args, kwargs, answer, is_by_size=is_by_size, is_branch=is_branch
        )
        self._said.setdefault(key, []).append(answer)
        return answer

    def _key(self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> tuple[str, str]:
        return name, repr(map_leaves(named_value, (args, kwargs)))

    @contextmanager
    def replaying(self, diverge: Callable[[], NoReturn]) -> Iterator[None]:
        """Repeat the answers of the run in a ``with`` block; call ``diverge`` at a new question."""
        self._diverge = diverge
        self._replayed = {key: list(reversed(said)) for key, said in self._said.items()}
        try:
            yield
        finally:
            self._replayed = None

    def _answered_before(self, key: tuple[str, str]) -> bool:
        said = (self._replayed or {}).get(key)
        return said.pop() if said else self._diverge()

    def _answer_to(
        self,
        name: str,
        args: tuple[Value, ...],
        kwargs: dict[str, Value],
        answer: bool,
        *,
        is_by_size: bool,
        is_branch: bool,
    ) -> bool:
        self._asked += 1
        is_forced = bool(self._answers) or self._plan is not None
        if is_forced and self._asked > MAX_QUESTIONS:
            raise CaptureError("the model does not end on the other way of a decision")
        question = self._question(name, args, kwargs)
        if question in self._known:
            return self._known[question]
        if self._plan is None and len(self.made) == MAX_DECISIONS:
            if name == TRUTH:
                self._guards.expect_truth(args[0], answer, OVER)
            else:
                self._guards.expect_call(name, args, answer, kwargs)
            return answer
        if len(self.made) < len(self._answers):
            answer = self._answers[len(self.made)]
        where, place = code_place(), _call_place()
        if self._plan is not None and not is_by_size:
            answer = self._plan(place, self._planned[place], answer)
            self._planned[place] += 1
        given = (*args, where) if name == TRUTH else args
        condition = self._recorder.call("function", name, given, kwargs)
        self.made.append(Decision(condition, answer, where, place, is_by_size, is_branch=is_branch))
        self._branches += is_branch
        if question:
            self._known[question] = answer
        return answer

    def _question(self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> str:
        """Return a text that is equal for equal questions; empty if the answer may have changed."""
        is_open = self._guards.changed.may_reach((args, kwargs)) or (
            self._guards.changes_state and _reads_state((args, kwargs))
        )
        return "" if is_open else self._numbers.call(name, args, kwargs)

    def _follows_inputs(self, value: Value) -> bool:
        """Return whether a value may depend on numbers of the inputs, on random or kept ones."""
        if self.bodies:
            return False
        if self._flags and not self._flags.isdisjoint(keys_read(value)):
            return True
        # Nearest values first: in a loop, the turn before is near, and the first one is far.
        pending: deque[_Read] = deque((leaf, None) for leaf in leaves(value))
        readers: dict[TracedValue, TracedValue | None] = {}
        while pending:
            leaf, reader = pending.popleft()
            if not isinstance(leaf, TracedValue) or leaf in readers:
                continue
            if leaf in self._fixed and not self._guards.changes_in_place:
                continue
            readers[leaf] = reader
            if leaf in self._following or self._is_of_input(leaf):
                self._following |= _chain(leaf, readers)
                return True
            call = leaf.call
            if call is not None and call.target in RESULTS_BY_SIZES:
                # A size depends on numbers if an earlier function selects elements by value.
                read = [each for each in leaves(call.args) if picks(each)]
            else:
                read = [] if call is None else leaves(call.args, call.kwargs)
            pending.extend((each, leaf) for each in read)
        self._fixed.update(readers)
        return False

    def _is_of_input(self, value: TracedValue) -> bool:
        """Return whether a value itself is from an input, or may be random or kept."""
        call = value.call
        if call is None:
            return True
        if call.target in RESULTS_BY_SIZES:
            return False
        is_kept = call.kind == "state" and call.is_late
        return is_kept or self._guards.changes_in_place or draws(call)


def _chain(
    value: TracedValue, readers: Mapping[TracedValue, TracedValue | None]
) -> set[TracedValue]:
    """Return a value, the one that is computed from it, and so on."""
    found: set[TracedValue] = set()
    each: TracedValue | None = value
    while each is not None:
        found.add(each)
        each = readers[each]
    return found


def _reads_state(value: Value) -> bool:
    """Return whether a value may depend on tensors of the model."""
    return any(
        isinstance(each, StateRead) or (each.call is not None and each.call.kind == "state")
        for each in origins(value)
    )


def _call_place() -> Place:
    """Return the lines of the model's code that are running, the calling ones included."""
    found: list[tuple[str, int]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_of_user(frame.f_code.co_filename):
            found.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return tuple(found)
