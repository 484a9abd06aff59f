"""The answers to the decisions of a search for loops, and what they leave behind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from layergraph.capturing import Example
from layergraph.errors import CaptureError
from layergraph.ir import Value
from layergraph.torch2ir.tracing.lines import Place
from layergraph.torch2ir.tracing.module_call import Decision, Trace, calls_in
from layergraph_capture.loops.frame_state import IDENTITY
from layergraph_capture.loops.turns import BEGIN
from layergraph_capture.ways.plans import Plan

Question = tuple[Place, int]
"""A place of decisions, and the number of decisions that a run has made there before."""

RunWith = Callable[[Example, Plan], Trace]
"""A function that runs the model on an example, with answers to its decisions."""

# In the text of a state, a name of a tensor, or of a list of tensors.
_OF_TENSORS = re.compile(r"\('\w+', <class '[\w.]+'>\)(, )?")


def as_numbers_say(_place: Place, _number: int, answer: bool) -> bool:
    """Answer a decision by the numbers."""
    return answer


# A run with other answers or of more turns may ask at a place so many times as often as the numbers
# of the example do, and so many times more.
_TIMES, _MORE = 4, 128


def bounded(run: RunWith, decisions: Sequence[Decision]) -> RunWith:
    """Return a function that runs the model, but ends a run that makes very many decisions.

    With the answers of a plan, ``while error > bound`` may go on forever.

    Args:
        run: runs the model.
        decisions: those of the run whose answers are those of the numbers.
    """
    most = _TIMES * max(Counter(each.place for each in decisions).values(), default=0) + _MORE

    def run_bounded(example: Example, plan: Plan) -> Trace:
        def answered(place: Place, number: int, answer: bool) -> bool:
            if number >= most:
                raise CaptureError("the model does not end on the other way of a decision")
            return plan(place, number, answer)

        return run(example, answered)

    return run_bounded


class ShorterWayError(Exception):
    """The runs take the way of a decision that computes or guards less than the other one.

    Args:
        place: the place of the decision.
    """

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.place = place


@dataclass(slots=True)
class Usual:
    """The answers at the places of decisions: that of the first decision at each place.

    Attributes:
        answers: the answers so far.
    """

    answers: dict[Place, bool] = field(default_factory=dict)
    _turned: set[Place] = field(default_factory=set)

    def turn(self, place: Place) -> bool:
        """Answer a place otherwise; return False if that has been done before."""
        if place in self._turned:
            return False
        self._turned.add(place)
        turned = {each: self.answers[each] for each in self._turned}
        self.answers = turned | {place: not turned[place]}
        return True

    def plan(self, but: Collection[Question] = (), *, by_numbers: bool = False) -> Plan:
        """Return a plan that gives these answers, except to some questions.

        Args:
            but: the questions to which it gives the other answers.
            by_numbers: whether the numbers answer all other questions.
        """

        def answered(place: Place, number: int, answer: bool) -> bool:
            usual = self.answers.setdefault(place, answer)
            if by_numbers and (place, number) not in but:
                return answer
            return usual is not ((place, number) in but)

        return answered

    def otherwise(self) -> Plan:
        """Return a plan that gives the other answers."""
        plan = self.plan()
        return lambda place, number, answer: not plan(place, number, answer)


def states_of(trace: Trace) -> dict[Value, list[list[str]]]:
    """Return the plain states at the starts of turns, except first ones, of the loops at each line.

    Names of tensors do not count: code may define them on one way only. Each run makes its own
    objects, so only their order counts, and not their identity.
    """
    found: dict[tuple[Value, ...], list[str]] = {}
    for call in calls_in(trace.root):
        if call.target == BEGIN and call.args[0] > 0:
            state = _OF_TENSORS.sub("", call.where)
            found.setdefault(call.args[1:], []).append(state)
    lines: dict[Value, list[list[str]]] = {}
    for (_, line), states in found.items():
        lines.setdefault(line, []).append(_with_numbers(states))
    return lines


def _with_numbers(states: Sequence[str]) -> list[str]:
    """Return states with a number in place of the identity of each object."""
    numbers: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return numbers.setdefault(found[0], f"object {len(numbers)}")

    return [IDENTITY.sub(number, each) for each in states]


def are_kept(states: Sequence[str]) -> bool:
    """Return whether at most one of the states, and not the last one, differs from the first."""
    return states[0] == states[-1] and sum(each != states[0] for each in states) <= 1
