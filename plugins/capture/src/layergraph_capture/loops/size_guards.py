"""Guards of the sizes on which loops depend."""

from __future__ import annotations

from dataclasses import dataclass

from layergraph.torch2ir.tracing.module_call import Call, Trace, TracedValue, wish_of
from layergraph_capture.loops.candidate import Candidate
from layergraph_capture.loops.counts import Count
from layergraph_capture.loops.item_counts import ItemCount
from layergraph_capture.loops.lengths import Length
from layergraph_capture.loops.repeats import Item
from layergraph_capture.loops.verify import OtherRunError
from layergraph_capture.loops.written import ASSUME, CONTAINER, Rolled

AnyLength = Length | ItemCount


@dataclass(frozen=True, slots=True, eq=False)
class Varied:
    """Two runs on inputs of other lengths.

    Attributes:
        count: the number of turns of the user's example.
        turns: the number of turns of the shorter run.
        length: the varied size.
        base: the shorter run.
        longer: the run with one turn more.
    """

    count: Count
    turns: int
    length: AnyLength
    base: Trace
    longer: Trace

    @property
    def fewest(self) -> int:
        """Return the number of turns for a size of 0, extrapolated from the example."""
        return self.count.turns - self.length.size // self.length.step


class SizesOf:
    """The sizes that depend on one size of the inputs.

    Args:
        varied: the two runs in which that size differs.
        candidate: the record with loops.
        index: the index of this pair among all pairs of runs.
    """

    def __init__(self, varied: Varied, candidate: Candidate, index: int) -> None:
        self.varied = varied
        self._record = candidate.record
        # For each size, its numbers in the base run and in the longer run.
        pairs = {each: each.numbers[2 * index :][:2] for each in candidate.sizes}
        self._sizes = {each: pair for each, pair in pairs.items() if pair[0] != pair[1]}

    def guard_turns(self, comparison: str, turns: int, *, is_part: bool = False) -> None:
        """Guard a least or a most number of turns by the sizes.

        Args:
            comparison: ``ge`` or ``le``.
            turns: the number.
            is_part: whether the last turn may be partial.
        """
        for size, (base, longer) in self._sizes.items():
            step = longer - base
            number = base + step * (turns - self.varied.turns)
            if is_part:
                number -= step - 1 if step > 0 else step + 1
            # A size that shrinks gives more turns.
            target = comparison if step > 0 else {"ge": "le", "le": "ge"}[comparison]
            # No size is negative, and the loop function itself refuses a negative number of turns.
            if target == "le" or number > 0:
                guard_size(self._record, size.value, target, number, True)

    def guard_whole_turns(self) -> None:
        """Guard that no turn is partial."""
        for size, (base, longer) in self._sizes.items():
            step = abs(longer - base)
            if step > 1:
                guard_size(self._record, size.value, "mod", step, base % step)


def guard_size(
    result: Rolled, value: TracedValue, target: str, operand: int, expected: object
) -> None:
    """Guard a size on which loops depend.

    Args:
        result: the record with the loops.
        value: the size.
        target: the name of the operator that compares it.
        operand: the number that it is compared with.
        expected: the result of the comparison.

    Raises:
        OtherRunError: the module call that computes the size does not hold it.
    """
    scope = value.scope
    found = _place(scope.items, value) or _place_of_input(scope.items, value)
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
    """Return the items, perhaps of a body, and the index of the call that returns a value."""
    for index, item in enumerate(items):
        if isinstance(item, Call):
            if item.value is value:
                return items, index
            inside = (_place(body.items, value) for body in item.bodies)
            found = next(filter(None, inside), None)
            if found is not None:
                return found
    return None


def _place_of_input(items: list[Item], value: TracedValue) -> tuple[list[Item], int] | None:
    """Return the items, and the index of the guard of the class of an input."""
    for index, item in enumerate(items):
        if isinstance(item, Call) and item.target == CONTAINER and item.args[0] is value:
            return items, index
    return None
