"""The runs on all ways of a model in the other mode, as their replays found it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from layergraph.torch2ir.tracing.module_call import Trace
from layergraph.torch2ir.tracing.other_mode import OtherMode
from layergraph_capture.ways.merge import is_whole
from layergraph_capture.ways.modes import other_mode_of


def joined_other_mode(traces: Sequence[Trace]) -> OtherMode | None:
    """Return the differences of the other mode in all runs; None if they are unknown in one."""
    joined = OtherMode(set(), [], [])
    for trace in traces:
        other = other_mode_of(trace)
        if other is None:
            return None
        joined.readings.update(other.readings)
        joined.changed.extend(other.changed)
        joined.replaced.extend(other.replaced)
    return joined


@contextmanager
def swapped(traces: Sequence[Trace], other: OtherMode) -> Iterator[bool]:
    """Exchange the calls of runs with those of the other mode inside a ``with`` block.

    Args:
        traces: the records of the runs.
        other: the differences of the other mode in all of them.

    Yields:
        Whether these are records of their own there: each value that they read and each decision
        has its call. A module that makes other calls may have contained it.
    """
    with other.swapped():
        yield all(map(is_whole, traces))
