"""Repetitions in a sequence of calls, found by the form of the calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from layergraph.ir import Value
from layergraph.ir.values import parts
from layergraph.torch2ir.tracing.module_call import Call, ModuleCall, TracedBody, TracedValue

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

    def of(self, items: Sequence[Item]) -> list[int]:
        """Return the number of each item's form."""
        return [self._number(self._form(item)) for item in items]

    def _number(self, form: object) -> int:
        return self._numbers.setdefault(form, len(self._numbers))

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
    return (kind.__name__, keys, *[form_of(each, numbers) for each in inside])


def repeats(forms: Sequence[int]) -> tuple[Repeat, ...]:
    """Return the repetitions in a sequence, from left to right; they do not overlap.

    Args:
        forms: the sequence.
    """
    return tuple(_repeats(torch.tensor(forms, dtype=torch.int64), 0))


def _repeats(forms: torch.Tensor, offset: int) -> Iterator[Repeat]:
    best = _best(forms)
    if best is None:
        return
    inside = repeats(forms[best.start : best.start + best.period].tolist())
    yield from _repeats(forms[: best.start], offset)
    yield Repeat(best.start + offset, best.period, best.turns, inside)
    yield from _repeats(forms[best.end :], offset + best.end)


def _best(forms: torch.Tensor) -> Repeat | None:
    """Return the first repetition of the most items with the shortest period."""
    count = len(forms)
    best: Repeat | None = None
    covered = 0
    for period in range(1, min(count // 2, _MOST // max(count, 1)) + 1):
        same = forms[:-period] == forms[period:]
        if _most_turns(int(same.count_nonzero()), period) * period <= covered:
            continue
        start, length = _longest_run(same)
        turns = _most_turns(length, period)
        if turns > 1 and turns * period > covered:
            covered, best = turns * period, Repeat(start, period, turns)
    return best


def _most_turns(same: int, period: int) -> int:
    """Return the number of turns if so many items equal those one period later."""
    return (same + period) // period


def _longest_run(same: torch.Tensor) -> tuple[int, int]:
    """Return the start and the length of the longest run of True."""
    ends = torch.nonzero(~same).flatten()
    bounds = torch.cat([ends.new_tensor([-1]), ends, ends.new_tensor([len(same)])])
    gaps = bounds[1:] - bounds[:-1] - 1
    longest = int(gaps.argmax())
    return int(bounds[longest]) + 1, int(gaps[longest])
