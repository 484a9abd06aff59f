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
    """The seconds of each variant in each round, or the reason why it has none."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, way: str) -> Spread:
        return Spread.of(self.seconds[way])

    def get(self, way: str) -> Spread | None:
        return self[way] if way in self.seconds else None

    def ratio(self, one: str, other: str) -> Spread:
        """Return the ratio of one variant's seconds to another's, over the rounds."""
        return self.ratio_to(one, lambda seconds: seconds[other])

    def ratio_to(self, one: str, whole: Callable[[dict[str, float]], float]) -> Spread:
        """Return the ratio of one variant's seconds to a function of a round's seconds."""
        rounds = min(map(len, self.seconds.values()))
        each = [
            {way: taken[index] for way, taken in self.seconds.items()} for index in range(rounds)
        ]
        return Spread.of([seconds[one] / whole(seconds) for seconds in each])

    def keep(self, *ways: str) -> Timed:
        """Return only some variants, so that a slow one does not shorten the list of rounds."""
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
    """Time several variants in one process, in turns, so that other load affects all of them.

    Each round begins with a different variant. The garbage collector runs before each turn and not
    during it. Results are dropped after the clock stops.

    Args:
        ways: the timed functions, by name.
        rounds: the number of rounds.
        warm_up: whether to make a first round that does not count.
        patience: the seconds in all after which a variant gets no further turn; each gets at least
            one.
        check: takes the result of each variant in the warm-up; it raises if the result is wrong.
        settle: called before each turn. With ``os.sync``, a variant that waits for the disk does
            not wait for the writes of earlier ones.
        clock: ``time.process_time`` if the compared runs are minutes apart, because the load of the
            machine changes in between.
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
    """Return the seconds of one run of a slow function, and its result."""
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
    """Return the text of an error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"


def geometric_mean(numbers: Iterable[float]) -> float:
    return math.exp(statistics.mean(map(math.log, numbers)))


def exponent(points: Iterable[tuple[float, float]]) -> float:
    """Return the exponent of y as a power of x: the slope of the best fit of the logarithms."""
    logarithms = [(math.log(x), math.log(y)) for x, y in points]
    return statistics.linear_regression(*zip(*logarithms, strict=True)).slope
