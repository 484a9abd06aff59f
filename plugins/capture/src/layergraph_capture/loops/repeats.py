"""Repetitions in a sequence of calls, found by the form of the calls."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from layergraph.ir import Value
from layergraph.ir.values import parts
from layergraph.torch2ir.tracing.module_call import (
    Call,
    ModuleCall,
    TracedBody,
    TracedValue,
    values_in,
)

Item = Call | ModuleCall

# The most comparisons of a search, so that a long record without repetitions costs little.
_MOST = 50_000_000


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part of a sequence that consists of equal turns.

    Attributes:
        start: the index of the first item of the first turn.
        period: the number of items of a turn.
        turns: the number of turns.
        inside: the repetitions inside the first turn.
    """

    start: int
    period: int
    turns: int
    inside: tuple[Repeat, ...] = ()

    @property
    def end(self) -> int:
        """Return the index after the last item."""
        return self.start + self.period * self.turns


@dataclass(slots=True)
class Forms:
    """Numbers the forms of calls.

    Two calls have the same form if they have the same target, and arguments that differ only in
    traced values and numbers.

    Attributes:
        numbers: the classes of these numbers.
    """

    numbers: tuple[type, ...] = (int,)
    _numbers: dict[object, int] = field(default_factory=dict)
    # By module call: otherwise each would be described again for every call around it.
    _known: dict[ModuleCall, int] = field(default_factory=dict)

    def of(self, items: Sequence[Item]) -> list[int]:
        """Return the number of each item's form."""
        numbers: list[int] = []
        read: list[Value] = []
        for item in items:
            if not _is_of_size(item):
                numbers.append(self._number(item))
                read = []
                continue
            # Two loops that only read sizes, one after the other, are no single loop.
            read = [*read, *item.args] if read[:1] == [*item.args[:1]] else [*item.args]
            form = item.target, form_of(tuple(read), ()), form_of(item.kwargs)
            numbers.append(self._number_of(form))
        return numbers

    def _number_of(self, form: object) -> int:
        return self._numbers.setdefault(form, len(self._numbers))

    def _number(self, item: Item) -> int:
        known = self._known.get(item) if isinstance(item, ModuleCall) else None
        if known is None:
            known = self._number_of(self._form(item))
            if isinstance(item, ModuleCall):
                self._known[item] = known
        return known

    def _form(self, item: Item) -> object:
        given = (
            form_of(item.args, self.numbers),
            form_of(item.kwargs, self.numbers),
            None if item.when is None else item.when[1],
        )
        if isinstance(item, Call):
            inside = [self._body(body) for body in item.bodies]
            return item.kind, item.target, *given, *inside
        facts = [
            (value.rank, value.dtype)
            for value in (*item.reads(),)
            if isinstance(value, TracedValue)
        ]
        known = (*sorted(item.known), *facts) if item.known else ()
        result = form_of(item.result, self.numbers)
        return item.path, *given, result, known, *self.of(item.items)

    def _body(self, body: TracedBody) -> object:
        return len(body.inputs), form_of(body.result, self.numbers), *self.of(body.items)


def _is_of_size(item: Item) -> TypeGuard[Call]:
    return isinstance(item, Call) and item.target == SIZE and item.when is None


SIZE = "torch.Tensor.size"
"""The function that reads a size."""


def form_of(value: Value, numbers: tuple[type, ...] = (int,)) -> object:
    """Return the form of a value, without traced values and numbers.

    Args:
        value: the value.
        numbers: the classes of these numbers.
    """
    inside = parts(value)
    kind = type(value)
    if inside is None:
        if isinstance(value, TracedValue):
            return TracedValue
        return kind if kind in numbers else None if kind is TracedBody else repr(value)
    if kind in (list, tuple) and inside and all(isinstance(each, TracedValue) for each in inside):
        # The length of a list does not count, because it may grow in each turn.
        return kind
    keys = tuple(value) if kind is dict else ()
    forms = [form_of(each, numbers) for each in inside]
    if kind in (list, tuple) and all(type(each) in (list, tuple, dict) for each in inside):
        # One of them for each turn.
        forms = [*dict.fromkeys(forms)] if values_in(value) else forms
    return (kind.__name__, keys, *forms)


def repeats(forms: Sequence[Hashable]) -> tuple[Repeat, ...]:
    """Return the repetitions in a sequence, from left to right; they do not overlap.

    Args:
        forms: the sequence.
    """
    return tuple(_repeats(forms, 0))


def _repeats(forms: Sequence[Hashable], offset: int) -> Iterator[Repeat]:
    best = _best(forms)
    if best is None:
        return
    inside = repeats(forms[best.start : best.start + best.period])
    yield from _repeats(forms[: best.start], offset)
    yield Repeat(best.start + offset, best.period, best.turns, inside)
    yield from _repeats(forms[best.end :], offset + best.end)


def _best(forms: Sequence[Hashable]) -> Repeat | None:
    """Return the first repetition of the most items with the shortest period."""
    count = len(forms)
    if len(set(forms)) == count:
        return None
    best: Repeat | None = None
    covered = 0
    planes = _planes(forms)
    for period in range(1, min(count // 2, _MOST // max(count, 1)) + 1):
        differs = 0
        for plane in planes:
            differs |= plane ^ (plane >> period)
        same = ~differs & ((1 << (count - period)) - 1)
        turns = _most_turns(same.bit_count(), period)
        if turns < 2 or turns * period <= covered:
            continue
        start, length = _longest_run(same)
        turns = _most_turns(length, period)
        if turns > 1 and turns * period > covered:
            covered, best = turns * period, Repeat(start, period, turns)
    return best


def _planes(forms: Sequence[Hashable]) -> list[int]:
    """Return integers whose bits, at the place of an item, are the bits of its number.

    A comparison of all items with those one period later is then a few operations on integers.
    """
    numbers = {form: number for number, form in enumerate(dict.fromkeys(forms))}
    return [
        int("".join("1" if numbers[form] >> bit & 1 else "0" for form in reversed(forms)), 2)
        for bit in range((len(numbers) - 1).bit_length())
    ]


def _most_turns(same: int, period: int) -> int:
    """Return the number of turns if so many items equal those one period later."""
    return (same + period) // period


def _longest_run(bits: int) -> tuple[int, int]:
    """Return the place and the length of the longest run of ones, the first of several."""
    # The places where runs of at least 1, 2, 4, … ones begin.
    begins = [bits]
    while begins[-1]:
        begins.append(begins[-1] & (begins[-1] >> (1 << (len(begins) - 1))))
    found, length = -1, 0
    for level in reversed(range(len(begins) - 1)):
        longer = found & (begins[level] >> length)
        if longer:
            found, length = longer, length + (1 << level)
    return ((found & -found).bit_length() - 1 if length else 0), length
