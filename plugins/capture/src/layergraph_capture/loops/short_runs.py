"""Giving up a run of very many turns, to find its loop on inputs of few turns instead.

To record a call takes many times as long as to make it. What a loop of the graph does in later
turns, its first turns and the runs of other lengths show; so a run that goes on and on is left as
soon as that is seen. The graph is found on shorter inputs then, and the capturer compares what it
gives for the inputs of the user with what the model gives.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from layergraph.capturing import Example
from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.module_call import ModuleCall
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph.undo import raise_interrupt
from layergraph_capture.loops.counts import Count, named_numbers, steps_in
from layergraph_capture.loops.lengths import lengths
from layergraph_capture.loops.repeats import Forms, Item

# A run is looked at when it has so many values, and again when it has grown twice as long: at so
# many of its last calls.
_FIRST_LOOK = 160
_WINDOW = 1024
# From so many turns on, calls that repeat each other may go on to do so.
_SEEN_TURNS = 4
# Fewer turns are recorded as quickly.
_LEAST_TURNS = 64
# A run is left if so many values are ahead of it. Fewer are recorded as quickly.
_MOST_AHEAD = 3000
# The turns of the shorter inputs: the finder of loops needs no other run for these.
_TURNS = 5
# The most shorter inputs that are tried.
_MOST_EXAMPLES = 3

NEVER = sys.maxsize


class LongRun(BaseException):
    """A run goes on for very many turns. It is no error, which code may catch."""


class LongRunError(CaptureError):
    """A run was left because it goes on for very many turns."""


class ShortRuns:
    """The example on which a model is captured: that of the user, or a shorter one.

    Args:
        given: the example of the user.
        leaves: whether any run is left.

    Attributes:
        example: the example on which the model is captured.
        is_compared: whether the model can be compared with its IR: it changes no parameter.
        next_look: the position of the recorder at which a run is to be looked at.
    """

    def __init__(self, given: Example, *, leaves: bool) -> None:
        self._given = given
        self._left: Iterator[Example] | None = None
        self._is_over = not leaves
        self._is_left = False
        self.example = given
        self.is_compared = True
        self.next_look = NEVER if self._is_over else _FIRST_LOOK

    @property
    def is_short(self) -> bool:
        """Return whether the example is another one than that of the user."""
        return self.example is not self._given

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at a run.

        Raises:
            LongRunError: it was left. Code that it was in may have raised something else then.
        """
        self._is_left = False
        self.next_look = NEVER if self._is_over else _FIRST_LOOK
        try:
            yield
        except (Exception, LongRun) as error:
            raise_interrupt(error)
            if not self._is_left:
                raise
        if self._is_left:
            raise LongRunError("it runs for very many turns")

    def look(self, recorder: Recorder) -> None:
        """Look at a run, and leave it if it goes on for very many turns.

        Raises:
            LongRun: it does.
        """
        self.next_look = recorder.position * 2
        counts = dict.fromkeys(_counts(recorder))
        if counts:
            # The examples are made when nothing is recorded any more.
            if not self.is_short:
                self._left = _shorter(self._given, counts)
            self._is_left = True
            raise LongRun

    def goes_on(self) -> bool:
        """Take the next example, after a capture that failed; return whether there is one."""
        if self._is_over or self._left is None:
            return False
        self.example = next(self._left, self._given)
        if not self.is_short:
            self.give_up()
        return True

    def changes_parameters(self) -> None:
        """Note that the model may change its parameters: it is not compared with its IR then."""
        self.is_compared = False

    def give_up(self) -> None:
        """Take the example of the user, and leave no run of it."""
        self.example, self._left, self._is_over = self._given, None, True


def _shorter(example: Example, counts: Iterable[Count]) -> Iterator[Example]:
    """Return examples of few turns, where others may have those of a number of turns."""
    found = (
        length.call(example, _TURNS - count.turns)
        for count in counts
        for length in lengths(example, count.number, count.each)
    )
    return itertools.islice(found, _MOST_EXAMPLES)


def _counts(recorder: Recorder) -> Iterator[Count]:
    """Yield the numbers that may be those of the turns of a run that goes on.

    Of two steps by which a number may follow from the turns, the larger one comes first: then the
    shorter inputs have more turns than that, and not fewer.
    """
    named = {each for each in named_numbers(recorder.root) if each >= _LEAST_TURNS}
    numbers = sorted(named, reverse=True)
    scope: ModuleCall | None = recorder.scope
    is_open = False
    while scope is not None and numbers:
        # The last one of the calls around is still going on.
        items = scope.items[:-1] if is_open else scope.items
        for period in _periods(Forms((int, float)).of(items[-_WINDOW:])):
            turn, after = items[-2 * period : -period], items[-period:]
            values = _position(after[0]) - _position(turn[0])
            for step in sorted({1, *steps_in(turn, after)}, reverse=True):
                for number in numbers:
                    turns = number // step if step > 0 and number % step == 0 else 0
                    if turns * values > recorder.position + _MOST_AHEAD:
                        yield Count(number, turns, step)
        scope, is_open = scope.parent, True


def _periods(forms: list[int]) -> Iterator[int]:
    """Yield the periods with which a sequence repeats itself at its end."""
    found: list[int] = []
    for period in range(1, len(forms) // _SEEN_TURNS + 1):
        is_new = all(period % each for each in found)
        if (
            is_new
            and forms[-period * (_SEEN_TURNS - 1) :] == forms[-period * _SEEN_TURNS : -period]
        ):
            found.append(period)
            yield period


def _position(item: Item) -> int:
    return item.start if isinstance(item, ModuleCall) else item.value.position
