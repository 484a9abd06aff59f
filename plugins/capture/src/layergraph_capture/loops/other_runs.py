"""Runs of a model on inputs of other lengths than the user's."""

from __future__ import annotations

from collections.abc import Callable

from layergraph.capturing import Example
from layergraph.errors import CaptureError
from layergraph.torch2ir.tracing.module_call import Trace
from layergraph_capture.loops.counts import turns_in
from layergraph_capture.loops.lengths import with_other_sizes
from layergraph_capture.loops.size_guards import AnyLength

# The most runs on inputs of other lengths.
_MOST_RUNS = 12

RunOn = Callable[[Example], Trace]
"""A function that runs the model on another example."""


class OtherRuns:
    """The runs of a search for loops, with symbolic iteration numbers.

    Args:
        example: the example call of the user.
        run: runs the model on another call.
        run_otherwise: runs it with the other answers to its decisions.

    Attributes:
        own_known: the record of a run on the example; None if there is none so far.
    """

    def __init__(self, example: Example, run: RunOn, run_otherwise: RunOn) -> None:
        self._example = example
        self._run = run
        self._run_otherwise = run_otherwise
        self._runs = 0
        # The runs that candidates are compared with, by what they vary.
        self._compared: dict[tuple[AnyLength, int, int], Trace | None] = {}
        self.own_known: Trace | None = None

    def begin_comparison(self) -> None:
        """Allow as many runs once more: the search for other lengths may have used them up."""
        self._runs = 0

    def own(self, length: AnyLength) -> Trace | None:
        """Return the record of a run on the example, the same one until ``own_known`` changes."""
        if self.own_known is None:
            self.own_known = self.search(length, 0)
        return self.own_known

    def search(self, length: AnyLength, turns: int, more: int = 0) -> Trace | None:
        """Return the record of a run of another length; None if it fails, or after too many.

        Args:
            length: what to vary.
            turns: the turns more than those of the example.
            more: a further growth of the size.
        """
        if self._runs == _MOST_RUNS:
            return None
        self._runs += 1
        return self.check(length, turns, more)

    def compare(self, length: AnyLength, turns: int, more: int = 0) -> Trace | None:
        """Return the record of such a run, the same one for each candidate."""
        key = length, turns, more
        if key not in self._compared:
            self._compared[key] = self.search(*key)
        return self._compared[key]

    def check(self, length: AnyLength, turns: int, more: int = 0) -> Trace | None:
        """Return the record of such a run, even beyond the limit of runs."""
        try:
            is_own = turns == more == 0
            example = self._example if is_own else length.call(self._example, turns, more)
            trace = self._run(example)
        except (CaptureError, RuntimeError):
            return None
        return None if any(each.is_by_size for each in trace.decisions) else trace

    def goes_other_ways(self, length: AnyLength, turns: int) -> bool:
        """Return whether the other ways take another length, if they take the example.

        Args:
            length: what to vary.
            turns: the turns more than those of the example.
        """
        try:
            self._run_otherwise(length.call(self._example, turns))
        except (CaptureError, RuntimeError):
            try:
                self._run_otherwise(self._example)
            except (CaptureError, RuntimeError):
                return True
            return False
        return True


def repeats_as_often_with_other_sizes(trace: Trace, example: Example, run: RunOn) -> bool:
    """Return whether one run shows that no number of turns depends on a size.

    Most repetitions are projections of an attention and the like.

    Args:
        trace: the record of a run on the example.
        example: the example call of the user.
        run: runs the model on another call.
    """
    for other in with_other_sizes(example):
        try:
            changed = run(other)
        except (CaptureError, RuntimeError):
            continue
        return turns_in(changed) == turns_in(trace)
    return False
