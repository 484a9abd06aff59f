"""The runs of a model, none of which may find what another one has left behind."""

from __future__ import annotations

from collections.abc import Callable

from layergraph.capturing import Run
from layergraph.torch2ir.tracing.module_call import Trace
from layergraph.torch2ir.tracing.statelessness import check_unaffected
from layergraph.torch2ir.tracing.tracer import Tracer


class Runs:
    """Runs a model on its ways, each as if it were the first.

    Args:
        run: runs a tracer, made by the function that it is given.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._made: list[tuple[Callable[[], Tracer], Trace]] = []

    def run(self, make: Callable[[], Tracer]) -> Trace:
        """Return the record of one more run.

        Raises:
            CaptureError: it failed, or a run does something else after another one.
        """
        trace = self._run(make)
        self.add(make, trace)
        return trace

    def add(self, make: Callable[[], Tracer], trace: Trace) -> None:
        """Compare a run with those before it.

        Raises:
            CaptureError: one of them does something else after the other.
        """
        for other_make, other in self._made:
            check_unaffected(make, trace, other.changes)
            check_unaffected(other_make, other, trace.changes)
        self._made.append((make, trace))
