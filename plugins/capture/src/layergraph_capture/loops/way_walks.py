"""Comparison of a record with loops with runs that answer decisions otherwise.

A run that answers one decision otherwise makes other calls for a while: its other way. Behind it,
the calls are those of the record again, and show what they read instead of the values that only
the way of the record computes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from layergraph.ir import Value
from layergraph.tensors.memory import same_bits
from layergraph.torch2ir.tracing.module_call import (
    Call,
    Decision,
    ModuleCall,
    Trace,
    TracedValue,
    calls_in,
)
from layergraph_capture.loops.numbers import is_of_turns
from layergraph_capture.loops.repeats import Item
from layergraph_capture.loops.verify import MISSING, Comparison, OtherRunError, RunCalls
from layergraph_capture.loops.written import ASSUME, Rolled

_RANK = "torch.Tensor.dim"


class RefusedRunError(OtherRunError):
    """A guard of the record refuses the run."""


@dataclass(slots=True, eq=False)
class Asked:
    """A decision of a run, at its place in the record with loops.

    Attributes:
        site: the call of the record.
        items: the items of the record around it.
        index: its index among them.
        turns: for each loop around it, the turn and the number of turns.
        decided: the value of the decision in the run.
        starts: for each item behind it, the number of calls that the run has made before.
    """

    site: Call
    items: Sequence[Item]
    index: int
    turns: tuple[tuple[int, int], ...]
    decided: TracedValue
    starts: list[int] = field(default_factory=list)


_UNREAD = object()  # the counterpart of a rank that the run does not read


class UnreadRankError(OtherRunError):
    """The run guards a rank that the record does not read."""


class Walk(Comparison):
    """A comparison with a run that may read other parts of values, and guard fewer ranks.

    A run records the read of a size or of an element where the value came about, and only if it
    uses the result, so each way has its own. It guards a rank only if a function before it may give
    other ranks, and another way may not call that function.
    """

    def __init__(self, rolled: Rolled, sizes: Collection[TracedValue]) -> None:
        super().__init__(rolled, sizes)
        # The reads of the run that the record does not make at this place.
        self.aside: list[Call] = []
        self._is_trial = False

    def _item(self, item: Item, calls: RunCalls) -> None:
        is_read = isinstance(item, Call) and (item.is_late or item.target == _RANK)
        if isinstance(item, Call) and is_read and item not in self._rolled.glue:
            self._read(item, calls)
        elif not self._guards_unread(item):
            super()._item(item, calls)

    def _take(self, calls: RunCalls, item: Item) -> Item:
        try:
            return super()._take(calls, item)
        except OtherRunError as error:
            taken = calls.items[calls.at - 1] if calls.at <= len(calls.items) else None
            if isinstance(taken, Call) and taken.target == _RANK:
                raise UnreadRankError(str(error)) from None
            raise

    def _read(self, item: Call, calls: RunCalls) -> None:
        found = self._made(item, calls)
        if found is not None:
            self._values[item.value] = found.value
            self._note_size(item.value, found.value)
            return
        self._values[item.value] = MISSING if item.is_late else _UNREAD

    def _guards_unread(self, item: Item) -> bool:
        """Return whether a call guards a rank that the run does not read."""
        is_guard = isinstance(item, Call) and item.target == ASSUME
        return is_guard and self._of(item.args[0]) is _UNREAD

    def _made(self, item: Call, calls: RunCalls) -> Call | None:
        """Return the read of the run for one of the record; None if the run does not make it."""
        at = calls.at
        while at < len(calls.items):
            other = calls.items[at]
            is_alike = isinstance(other, Call) and other.is_late is item.is_late
            if isinstance(other, Call) and is_alike and self._reads_the_same(item, other):
                while calls.at < at:
                    self._is_left_out(calls.take())
                calls.take()
                return other
            is_read = isinstance(other, Call) and other.is_late
            if not (is_read or super()._is_left_out(other)):
                break
            at += 1
        return next((each for each in self.aside if self._reads_the_same(item, each)), None)

    def _reads_the_same(self, item: Call, other: Call) -> bool:
        if (item.kind, item.target) != (other.kind, other.target):
            return False
        was, self._is_trial = self._is_trial, True
        try:
            self._same((item.args, item.kwargs), (other.args, other.kwargs))
        except OtherRunError:
            return False
        finally:
            self._is_trial = was
        return True

    def _same_given(self, item: Item, other: Item) -> None:
        try:
            super()._same_given(item, other)
        except OtherRunError as error:
            if isinstance(item, Call) and item.target.startswith(ASSUME) and not self._is_trial:
                raise RefusedRunError(str(error)) from None
            raise

    def _is_left_out(self, item: Item | None) -> bool:
        if super()._is_left_out(item):
            return True
        if isinstance(item, Call) and item.is_late:
            self.aside.append(item)
            return True
        return False


class Answers(Walk):
    """Finds the places of the decisions of a run.

    Attributes:
        found: the decisions, in order.
    """

    def __init__(self, rolled: Rolled, sizes: Collection[TracedValue]) -> None:
        super().__init__(rolled, sizes)
        self.found: list[Asked] = []

    def _items(self, items: Sequence[Item], calls: RunCalls) -> None:
        here: list[Asked] = []
        for index, item in enumerate(items):
            for each in here:
                each.starts.append(calls.at)
            if not self._is_made(item):
                continue
            self._item(item, calls)
            decided = self._values.get(item.value) if isinstance(item, Call) else None
            if isinstance(item, Call) and isinstance(decided, TracedValue):
                if decided not in self._answers or item in self._rolled.glue:
                    continue
                turns = tuple((turn, count) for _, turn, count in self._loops)
                here.append(Asked(item, items, index, turns, decided))
        for each in here:
            each.starts.append(calls.at)
        self.found += here


@dataclass(frozen=True, slots=True)
class Lost:
    """The counterpart of a value that a run does not compute, because it goes another way."""

    value: TracedValue


@dataclass(slots=True)
class Frame:
    """The values that calls can read: those of a body, or those around all loops.

    Attributes:
        loop: the loop of the body; None around all loops.
        values: the values of the record, each with its counterpart in the run.
    """

    loop: Call | None
    values: list[tuple[TracedValue, object]]


class OtherWay(Walk):
    """Finds the calls of the other way of a decision, and what takes the place of lost values.

    Args:
        rolled: the record, which goes one way.
        sizes: the values of the sizes on which loops depend.
        asked: the decision.
        own: the number of items of the record behind it that belong to its way.
        other: the number of calls that count in the run that belong to the other way.
        kept: of the items of the record's way, those that either way can compute.

    Attributes:
        items: the calls of the other way.
        frames: the values that they can read, the innermost ones last.
        learned: for lost values, the values of the run in their place.
    """

    def __init__(
        self,
        rolled: Rolled,
        sizes: Collection[TracedValue],
        asked: Asked,
        own: int,
        other: int,
        kept: Collection[Item],
    ) -> None:
        super().__init__(rolled, sizes)
        self._asked = asked
        self._own, self._other, self._kept = own, other, kept
        self._around: list[tuple[Sequence[Item], int, int]] = []
        self._has_gone = False
        self.items: list[Item] = []
        self.frames: list[Frame] = []
        self.learned: dict[TracedValue, Value] = {}

    def find(self, trace: Trace, decided: TracedValue) -> None:
        """Compare with the run.

        Args:
            trace: the run.
            decided: the value of the decision that it answers otherwise.

        Raises:
            OtherRunError: it differs in more than the way.
        """
        self._decided = decided
        constants = self._rolled.trace.constants
        for key, tensor in trace.constants.items():
            known = constants.setdefault(key, tensor)
            if known is not tensor and not same_bits(known, tensor):
                raise OtherRunError("another constant of the same name")
        self.compare(trace)
        if not self._has_gone:
            raise OtherRunError("the run does not come to the decision")

    def _same_scope(self, own: ModuleCall, other: ModuleCall) -> None:
        own.known |= other.known
        super()._same_scope(own, other)

    def _items(self, items: Sequence[Item], calls: RunCalls) -> None:
        lost = 0
        for index, item in enumerate(items):
            if index < lost and item not in self._kept:
                self._lose(item)
                continue
            if not self._is_made(item):
                continue
            self._around.append((items, index, len(self._loops)))
            self._item(item, calls)
            if item is self._asked.site and self._values[item.value] is self._decided:
                lost = index + 1 + self._own
                self._go(calls)
            self._around.pop()

    def _go(self, calls: RunCalls) -> None:
        self._has_gone = True
        frames = [Frame(None, [])] + [Frame(call, []) for call, _, _ in self._loops]
        own = self._rolled.trace
        visible: list[list[TracedValue]] = [[each.value for each in own.parameters]]
        visible += [list(call.bodies[0].inputs) for call, _, _ in self._loops]
        for items, index, depth in self._around:
            for item in items[:index]:
                if isinstance(item, ModuleCall):
                    visible[depth] += [each.value for each in calls_in(item)]
                else:
                    visible[depth].append(item.value)
        for frame, values in zip(frames, visible, strict=True):
            frame.values = [(each, self._values.get(each, MISSING)) for each in values]
        self.frames = frames
        while self._other:
            taken = calls.take()
            if taken is None:
                raise OtherRunError("the other way ends early")
            self._other -= counts(taken)
            self.items.append(taken)

    def _lose(self, item: Item) -> None:
        if isinstance(item, Call):
            self._values[item.value] = Lost(item.value)
            return
        for call in calls_in(item):
            self._values[call.value] = Lost(call.value)

    def _same_value(self, own: TracedValue, other: Value) -> None:
        found = self._values.get(own)
        if isinstance(found, Lost):
            self._learn(found.value, other)
        else:
            super()._same_value(own, other)

    def _are_same(self, one: object, other: Value) -> bool:
        if isinstance(one, Lost):
            self._learn(one.value, other)
            return True
        return super()._are_same(one, other)

    def _reads_the_same(self, item: Call, other: Call) -> bool:
        # A read of a lost value, such as of its size, is one of the value in its place.
        before = dict(self.learned)
        is_same = super()._reads_the_same(item, other)
        if not is_same:
            self.learned = before
        return is_same

    def _learn(self, lost: TracedValue, other: Value) -> None:
        known = self.learned.setdefault(lost, other)
        if not super()._are_same(known, other):
            raise OtherRunError(f"several values take the place of {lost.wish}")


def counts(item: Item) -> bool:
    """Return whether a call of a run counts: the ways do not differ in the others."""
    return not (isinstance(item, Call) and (item.is_late or is_of_turns(item)))


def extent(asked: Asked, other: Decision) -> tuple[int, int]:
    """Return how far the two ways of a decision go, until the calls of both are the same again.

    Args:
        asked: the decision in the run of the record's way.
        other: the decision in the run of the other way.

    Returns:
        The number of items of the record, and the number of calls of the other run that count.

    Raises:
        OtherRunError: the ways do not end in the items around the decision.
    """
    own, theirs = (_behind(each) for each in (asked.decided, other.condition))
    solid = [each for each in own if counts(each)]
    there = [each for each in theirs if counts(each)]
    end = 0
    while end < min(len(solid), len(there)) and _form(solid[-1 - end]) == _form(there[-1 - end]):
        end += 1
    wanted = len(solid) - end
    first = asked.starts[0] if asked.starts else 0
    for number, start in enumerate(asked.starts):
        before = sum(map(counts, own[: start - first]))
        if before == wanted:
            return number, len(there) - end
        if before > wanted:
            break
    raise OtherRunError("a way does not end in the turn in which it begins")


def calls_behind(decision: Decision) -> int:
    """Return the number of calls that count behind a decision."""
    return sum(map(counts, _behind(decision.condition)))


def _behind(decided: TracedValue) -> list[Item]:
    items = decided.scope.items
    if decided.call is None:
        raise OtherRunError("a decision belongs to no call")
    return items[items.index(decided.call) + 1 :]


def _form(item: Item) -> tuple[object, ...]:
    if isinstance(item, ModuleCall):
        return item.path, item.parameters, len(item.args), *item.kwargs
    return item.kind, item.target, len(item.args), *item.kwargs
