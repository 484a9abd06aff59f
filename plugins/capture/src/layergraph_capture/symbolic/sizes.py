"""The symbolic numbers of a run, and their values in the graph."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from types import FrameType
from typing import Any

import torch

from layergraph.ir import Value
from layergraph.literals import UnknownValueError, to_graph_literal
from layergraph.torch2ir.tracing.lines import code_place
from layergraph.torch2ir.tracing.module_call import Call, DeferredCall, TracedValue
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.loops.frame_state import PlainStates
from layergraph_capture.loops.turns import BEGIN, COUNT, is_of_turn
from layergraph_capture.symbolic.branches import selects_way
from layergraph_capture.symbolic.checks import Check, Guarded, OpenCheck
from layergraph_capture.symbolic.ended_sizes import end
from layergraph_capture.symbolic.linear_forms import may_differ
from layergraph_capture.symbolic.picking import picks
from layergraph_capture.symbolic.recorded_numbers import RecordedNumbers
from layergraph_capture.symbolic.symbolic_int import (
    SYMBOLIC_TYPES,
    Origin,
    SymbolicNumber,
    key_of,
    plain,
    symbolic,
)
from layergraph_capture.trackers.guards import Guards
from layergraph_capture.ways.decisions import ITEM, Decisions

GETITEM = "operator.getitem"
# No loop of code has this number.
_OF_ARGUMENT = -2
# The name in the origin of a number that is an argument.
_ARGUMENT = "argument"
_BY_NUMBERS, _WITH_ONE, _BRANCH = "by numbers", "with 1", "branch"


class Sizes:
    """Makes symbolic numbers, records their computation at their first use, and adds guards.

    Args:
        recorder: records the computation of numbers.
        guards: records guards.
        is_recording: returns whether the tracer records calls now.
        decisions: answers decisions; None to follow the way of the run.
        states: compares the states at loop iterations, if iterations are marked; otherwise None,
            and some comparisons of sizes are decisions.
        branches: the lines whose comparisons of sizes of one tensor are decisions anyway.

    Attributes:
        is_over: see :class:`SizeListener`.
        born: see :class:`SizeListener`.
        loops: the number of loops with symbolic iteration numbers so far.
    """

    def __init__(
        self,
        recorder: Recorder,
        guards: Guards,
        is_recording: Callable[[], bool],
        decisions: Decisions | None = None,
        states: PlainStates | None = None,
        branches: Collection[str] = (),
    ) -> None:
        self._recorder = recorder
        self._guards = guards
        self.is_recording = is_recording
        self._decisions = decisions
        self._states = states
        self._branches = branches
        self.is_over = False
        self.loops = 0
        self.born: list[weakref.ref[SymbolicNumber]] = []
        self._check = OpenCheck()
        # The keys of the comparisons that checks have guarded together.
        self._left: set[Any] = set()
        self._recorded = RecordedNumbers(recorder)

    def end(self) -> None:
        """Turn the numbers of the run into ended ones, wherever they are."""
        self.is_over = True
        self._recorded.clear()
        self._check.end()
        end(self.born)

    def assume(self, origin: Origin, result: object) -> None:
        """See :class:`SizeListener`."""
        if not self.is_recording():
            return
        if self._guards.is_new(key_of(origin)):
            if len(origin) == 1:
                value = self.read(origin[0])
            else:
                name, *args = origin
                value = self._recorder.call("function", name, self._given(args), {})
            self._guards.expect(value, to_graph_literal(result, self.read, SYMBOLIC_TYPES))

    def next_loop(self) -> int:
        """See :class:`TurnListener`."""
        self.loops += 1
        return self.loops

    def count(self, number: Any) -> Any:
        """See :class:`TurnListener`."""
        if not isinstance(number, SymbolicNumber):
            return number
        if self.is_recording() and self._guards.is_new((COUNT, number.key())):
            args = self.read(number), number.plain(), code_place()
            _record_count(self._recorder, number.origin[0], args)
        return number.plain()

    def begin_turn(self, turn: int, loop: int, frame: FrameType, left: int) -> None:
        """See :class:`TurnListener`."""
        if self._states is not None and not self._recorder.is_sealed:
            state = self._states.of(frame, turn, left)
            self._recorder.call("function", BEGIN, (turn, loop, _line_of(frame)), {}, state)

    def begin_item(self, index: int) -> None:
        """See :class:`TurnListener`."""
        self._recorder.call("function", BEGIN, (index, _OF_ARGUMENT, ""), {})

    def decide(self, origin: Origin, result: bool) -> bool:
        """See :class:`SizeListener`."""
        name, *args = origin
        check = self._check.begin() if self.is_recording() else None
        if check is not None and self._follows_check(check, origin, result):
            return result
        answer = None
        if self._decisions is not None and self.is_recording():
            kind = self._kind_of_decision(name, args)
            given = functools.partial(self._given, args)
            if kind is not None:
                answer = self._decisions.comparison(
                    key_of(origin), name, given, result, is_branch=kind == _BRANCH
                )
        if answer is None:
            self.assume(origin, result)
            return result
        return answer

    def _follows_check(self, check: Check, origin: Origin, result: bool) -> bool:
        """Guard a comparison of sizes by which code decides whether to raise an error.

        If the code has gone on with earlier comparisons of the check, one guard for all of them is
        enough: the error is not raised.
        """
        if not all(map(_is_of_inputs, origin[1:])):
            return False
        items, condition = self._recorder.scope.items, self._check.condition(check, origin)
        if self._recorder.is_sealed:
            return key_of(condition) in self._left
        if result is check.answer:
            before = len(items)
            self.assume(origin, result)
            if not check.is_last:
                calls = [each for each in items[before:][-2:] if isinstance(each, Call)]
                guarded = Guarded(condition, key_of(origin), calls)
                self._check.add(guarded)
            return True
        earlier = self._check.taken()
        if not earlier or not all(each.calls for each in earlier):
            return False
        for each in earlier:
            self._guards.drop(each.key, each.calls[1])
            self._recorder.remove(each.calls[0])
        conditions = [*(each.condition for each in earlier), condition]
        self._left.update(map(key_of, conditions))
        if self._guards.is_new(("check", *map(key_of, conditions))):
            values = [
                self._recorder.call("function", name, self._given(args), {})
                for name, *args in conditions
            ]
            both = functools.partial(self._recorder.call, "function", "operator.and_", kwargs={})
            self._guards.expect(
                functools.reduce(lambda one, other: both(args=(one, other)), values), False
            )
        return True

    def _kind_of_decision(self, name: str, args: Sequence[Any]) -> str | None:
        """Return the kind of decision that a comparison is; None if it is a guard.

        Both ways of a decision are captured. A comparison is one if numbers from tensors decide it.
        Of sizes, two kinds of comparisons are. Code often has a branch for a batch of one or a
        single token, so comparisons with 1 are decisions. So are branches by numbers that are equal
        in the example, such as a number of missing rows that is 0: the other way pads by nothing
        then, so the example can take it. Code also branches by a number among the arguments. We
        compare sizes of one tensor only: sizes of two arguments that differ do not fit together.
        """
        numbers = [each for each in args if isinstance(each, SymbolicNumber)]
        if any(map(is_of_turn, numbers)):
            return None
        if any(map(_is_of_tensor, numbers)):
            return _BY_NUMBERS
        if self._states is not None:
            return None
        left, right = map(plain, args)
        if [left, right].count(1) == 1 and name in ("operator.eq", "operator.ne"):
            return _WITH_ONE
        is_asked = left == right or any(map(_is_of_argument, numbers))
        is_asked = is_asked or (bool(self._branches) and self._is_asked(name, args))
        if not (is_asked and len(_measured(numbers)) == 1 and selects_way()):
            return None
        return _BRANCH if may_differ(*args) else None

    def _is_asked(self, name: str, args: Sequence[Any]) -> bool:
        """Return whether the run of the example or this run decides by such a comparison."""
        if code_place() in self._branches:
            return True
        return self._decisions is not None and self._decisions.is_known(name, self._given(args))

    def _given(self, args: Sequence[Any]) -> tuple[Value, ...]:
        given: Any = to_graph_literal(tuple(args), self.read, SYMBOLIC_TYPES)
        return given  # type: ignore[no-any-return]

    def late(self, value: Any, late: DeferredCall, target: str, *args: Value) -> Any:
        """Return the symbolic number of a deferred call."""
        return symbolic(value, (late, target, *args), self)

    def of_caller(self, number: Any, value: TracedValue, index: int | None) -> Any:
        """Return the symbolic number for an argument, or for an item of an object of the caller."""
        if index is not None:
            return self.late(number, self._recorder.late(), GETITEM, value, index)
        known = symbolic(number, (_ARGUMENT, value), self)
        self._recorded.note(known, value)
        return known

    def of_call(self, name: str, given: tuple[Any, ...], args: tuple[Value, ...], gave: Any) -> Any:
        """Return the result of a function of numbers as symbolic numbers."""
        if not isinstance(gave, tuple):
            return symbolic(gave, (name, *given), self)
        value = self._recorder.call("function", name, args, {})
        late = self._recorder.late()
        known = [self.late(number, late, GETITEM, value, n) for n, number in enumerate(gave)]
        return torch.Size(known) if isinstance(gave, torch.Size) else tuple(known)

    def of_numbers(self, name: str, numbers: Sequence[Any], result: Any) -> Any:
        """See :class:`SizeListener`."""
        given = self._given(numbers)
        return self.late(result, self._recorder.late(), name, given)

    def is_own(self, value: object) -> bool:
        """Return whether a value is a number of this run."""
        return isinstance(value, SymbolicNumber) and value.listener is self

    def read(self, number: Any) -> Value:
        """Return the graph value of a number; record its computation at the first use."""
        if number.listener is self:
            return self._recorded.value(number)
        if not number.listener.is_over:
            raise UnknownValueError("a size of another capture, which runs around this one")
        value: Value = number.plain()
        return value


def _line_of(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}"


def _record_count(recorder: Recorder, origin: object, args: tuple[Value, ...]) -> None:
    """Record a number of turns.

    If it is a size, it stands where code reads the size. So the first turn of a loop around makes
    the same calls as the later ones, which do not count it again.
    """
    if isinstance(origin, DeferredCall):
        origin.call((COUNT,), COUNT, args, is_late=False)
    else:
        recorder.call("function", COUNT, args, {})


def _measured(numbers: Sequence[SymbolicNumber]) -> set[object]:
    """Return the tensors and arguments whose sizes numbers are computed from."""
    found: set[object] = set()
    seen: set[int] = set()
    pending: list[Any] = [*numbers]
    while pending:
        number = pending.pop()
        if isinstance(number, TracedValue):
            found.add(number)
        elif isinstance(number, SymbolicNumber) and id(number) not in seen:
            seen.add(id(number))
            pending += number.origin
    return found


def _is_of_inputs(number: object) -> bool:
    """Return whether a number follows from the sizes of inputs; plain numbers do."""
    return not isinstance(number, SymbolicNumber) or not (
        is_of_turn(number) or _is_of_tensor(number)
    )


def _is_of_tensor(number: SymbolicNumber) -> bool:
    """Return whether a number depends on numbers in a tensor."""
    return any(ITEM in each[:2] or any(map(picks, each)) for each in _origins(number))


def _is_of_argument(number: SymbolicNumber) -> bool:
    """Return whether a number depends on a number among the arguments."""
    return any(each[0] == _ARGUMENT for each in _origins(number))


def _origins(number: SymbolicNumber) -> Iterator[Origin]:
    """Yield the origin of a number, and of those that it was computed from."""
    pending = [number]
    while pending:
        origin = pending.pop().origin
        yield origin
        pending += [each for each in origin if isinstance(each, SymbolicNumber)]
