"""Numbers in the record of a run that may count the turns of a loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from layergraph.ir import Value
from layergraph.ir.values import leaves
from layergraph.torch2ir.tracing.module_call import (
    Call,
    ModuleCall,
    Trace,
    TracedValue,
    calls_in,
    inside_out,
)
from layergraph_capture.loops.repeats import SIZE, Forms, Item, repeats
from layergraph_capture.loops.turns import COUNT
from layergraph_capture.loops.written import ASSUME, LENGTH

# The least turns of a repetition that counts as a loop; so many turns may also differ from the
# rest.
_LEAST_TURNS = 3
_MOST_SPECIAL_TURNS = 3


@dataclass(frozen=True, slots=True, order=True)
class Count:
    """A number in the record of a run that may count turns.

    Attributes:
        number: the number.
        turns: the number of turns in the run.
        each: the part of the number per turn.
    """

    number: int
    turns: int
    each: int = 1


def counts_of(trace: Trace) -> list[Count]:
    """Return the numbers in guards and comparisons that may count turns.

    Args:
        trace: the record of a run.
    """
    named = {number for number in named_numbers(trace.root) if number >= _LEAST_TURNS}
    if not named:
        return []
    found: dict[int, Count] = {}
    repeated = _repeated(trace, partial(_may_count, named))
    for turns, steps in sorted(set(repeated), reverse=True, key=lambda each: each[0]):
        for number in named:
            each = _part_of_a_turn(number, turns, steps)
            if each is not None:
                found.setdefault(number, Count(number, turns, each))
            elif turns % number == 0:
                # Each turn of a loop repeats something a number of times that is always the same.
                found.setdefault(number, Count(number, number))
    return sorted(found.values(), reverse=True)


def _may_count(named: Collection[int], items: Sequence[Item]) -> bool:
    """Return whether a number may count turns in a part of a record: see :func:`_part_of_a_turn`.

    This check costs much less than the search for turns. No number of turns is larger than that of
    the calls with one target, and integers that grow from turn to turn are arguments of such calls.
    """
    most = max(Counter(filter(None, map(_target, items))).values())
    return min(named) - most <= _MOST_SPECIAL_TURNS or any(
        max(numbers) - min(numbers) > 1 for numbers in _integers(items).values()
    )


def _integers(items: Sequence[Item]) -> dict[Hashable, set[int]]:
    """Return the integers that stand at one place of the arguments of calls with one target."""
    found: dict[Hashable, set[int]] = {}
    for item in items:
        what = item.path if isinstance(item, ModuleCall) else item.target
        for place, number in enumerate(_given(item)):
            if type(number) is int:
                found.setdefault((item.kind, what, place), set()).add(number)
    return found


def _part_of_a_turn(number: int, turns: int, steps: frozenset[int]) -> int | None:
    """Return the part of a number per turn if it may count these turns; else None.

    Args:
        number: the number.
        turns: the turns of a repetition.
        steps: by how much integers grow from turn to turn.
    """
    is_whole = number % turns == 0
    for each in (1, *sorted(steps - {1})):
        if each > 0 and -1 <= number // each - turns <= _MOST_SPECIAL_TURNS:
            return number // turns if is_whole else each
    return None


def turns_in(trace: Trace) -> list[int]:
    """Return the number of turns of each repetition that computes.

    Args:
        trace: the record of a run.
    """
    return sorted(turns for turns, _ in _repeated(trace))


def _repeated(
    trace: Trace, is_of_interest: Callable[[Sequence[Item]], bool] = bool
) -> Iterator[tuple[int, frozenset[int]]]:
    """Yield, for each repetition that computes, its turns, and the steps of integers in it.

    Args:
        trace: the record of a run.
        is_of_interest: returns whether to search a part of the record.
    """
    # In this run, the numbers of turns are plain numbers.
    forms = Forms((int, float))
    for scope in inside_out(trace.root):
        for items in filter(is_of_interest, _segments(scope.items)):
            for each in repeats(forms.of(items)):
                starts = [(each.start, each)]
                starts += [(each.start + inner.start, inner) for inner in each.inside]
                for start, repeat in starts:
                    turn = items[start : start + repeat.period]
                    if any(map(_computes, turn)):
                        after = items[start + repeat.period :][: repeat.period]
                        yield repeat.turns, frozenset(steps_in(turn, after))


def _segments(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Yield the parts of a sequence that may contain turns: equal turns compute by equal targets.

    To compare the targets costs much less than to compare the arguments and the insides.
    """
    targets = [*map(_target, items)]
    count = Counter(filter(None, targets))
    if len(count) == count.total():
        return
    start = 0
    alone = [n for n, each in enumerate(targets) if each is not None and count[each] == 1]
    for end in [*alone, len(items)]:
        computed = [*filter(None, targets[start:end])]
        if len(computed) > 1 and repeats(computed):
            yield items[start:end]
        start = end + 1


def _target(item: Item) -> Hashable:
    """Return what an item calls; None if it only reads a size or an element."""
    if isinstance(item, ModuleCall):
        return (item.path,)
    is_read = item.value.number is not None or item.target.startswith(("operator.", "layergraph."))
    return None if is_read else item.target


def _computes(item: Item) -> bool:
    return _target(item) is not None


def steps_in(turn: Sequence[Item], after: Sequence[Item]) -> Iterator[int]:
    """Yield by how much integers grow from one turn to the next."""
    for one, other in zip(turn, after, strict=False):
        for number, next_number in zip(_given(one), _given(other), strict=False):
            if type(number) is int and type(next_number) is int:
                yield next_number - number


def _given(item: Item) -> Sequence[Value]:
    """Return the leaves of the arguments; none for a read of a size, whose integer is an axis."""
    return () if isinstance(item, Call) and item.target == SIZE else leaves(*item.args)


def named_numbers(root: ModuleCall) -> Iterator[int]:
    """Yield the numbers that guards and comparisons name.

    Args:
        root: the call of the model, as far as it has got.
    """
    for call in calls_in(root):
        if call.target in _COMPARISONS:
            for each in call.args:
                if isinstance(each, TracedValue) and each.number is not None:
                    yield each.number
        elif call.target in _GUARDS and type(call.args[1]) is int:
            yield call.args[1]


_GUARDS = frozenset({ASSUME, LENGTH, COUNT})
_COMPARISONS = frozenset(f"operator.{name}" for name in "lt le gt ge ne".split())
