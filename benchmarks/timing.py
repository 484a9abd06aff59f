"""Timing: the only module that measures seconds."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Way = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """A median, and the quartiles on both sides of it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        if len(numbers) == 1:
            return cls(numbers[0], numbers[0], numbers[0])
        low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
        return cls(median, low, high)

    @classmethod
    def exactly(cls, number: float) -> Spread:
        return cls(number, number, number)


@dataclass
class Timed:
    """The seconds that each way took in each of its turns, or why it has none."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, way: str) -> Spread:
        return Spread.of(self.seconds[way])

    def get(self, way: str) -> Spread | None:
        return self[way] if way in self.seconds else None

    def ratio(self, one: str, other: str) -> Spread:
        """How many times as long one takes as the other, round by round."""
        return self.ratio_to(one, lambda seconds: seconds[other])

    def ratio_to(self, one: str, whole: Callable[[dict[str, float]], float]) -> Spread:
        """The same, against what is computed from the seconds of a round."""
        rounds = min(map(len, self.seconds.values()))
        each = [
            {way: taken[index] for way, taken in self.seconds.items()} for index in range(rounds)
        ]
        return Spread.of([seconds[one] / whole(seconds) for seconds in each])

    def keep(self, *ways: str) -> Timed:
        """Those of some ways alone, so that a slow one does not shorten the others' list."""
        return Timed({way: self.seconds[way] for way in ways})


def take_turns(
    ways: Mapping[str, Way],
    *,
    rounds: int,
    patience: float = math.inf,
    warm_up: bool = True,
    check: Callable[[str, object], None] | None = None,
    settle: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Timed:
    """Time several ways in one process, by turns, so that what else the machine does meets all.

    Each round begins with another way. There is no
    garbage when a turn begins, and none is looked for during it; what the way gave is dropped
    afterwards.

    Args:
        ways: by name, what is timed.
        rounds: how many turns each has.
        warm_up: whether there is a first round that is not counted.
        patience: a way has no further turn when its turns took so many seconds, but it has one.
        check: called with what each way gave while it warmed up; it raises if that is wrong.
        settle: called before each turn. With ``os.sync``, who waits for the disk does not wait for
            what those before it left to be written.
        clock: ``time.process_time`` where minutes lie between what is compared, in which the load
            of the machine changes.
    """
    timed = Timed({name: [] for name in ways})
    for index in range(-1 if warm_up else 0, rounds):
        for name in _rotated(list(timed.seconds), index):
            taken = timed.seconds[name]
            if len(taken) < index or (taken and sum(taken) >= patience):
                continue
            if settle is not None:
                settle()
            try:
                seconds, given = _turn(ways[name], clock)
                if index < 0 and check is not None:
                    check(name, given)
            except Exception as error:
                timed.refusals[name] = refusal(error)
                del timed.seconds[name]
                continue
            if index >= 0:
                taken.append(seconds)
    return timed


def _rotated(names: list[str], by: int) -> list[str]:
    begin = max(by, 0) % len(names) if names else 0
    return [*names[begin:], *names[:begin]]


def once(way: Way, *, clock: Callable[[], float] = time.perf_counter) -> tuple[float, object]:
    """The seconds that something takes which is too slow to be repeated, and what it gives."""
    return _turn(way, clock)


def _turn(way: Way, clock: Callable[[], float]) -> tuple[float, object]:
    gc.collect()
    gc.disable()
    try:
        start = clock()
        given = way()
        return clock() - start, given
    finally:
        gc.enable()


def refusal(error: BaseException) -> str:
    """What an error says, in a line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"


def geometric_mean(numbers: Iterable[float]) -> float:
    return math.exp(statistics.mean(map(math.log, numbers)))


def exponent(points: Iterable[tuple[float, float]]) -> float:
    """By which power of x y grows: the slope of the line that fits their logarithms best."""
    logarithms = [(math.log(x), math.log(y)) for x, y in points]
    return statistics.linear_regression(*zip(*logarithms, strict=True)).slope
