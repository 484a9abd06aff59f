"""The runs of a model, none of which may find what another one has left behind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from layergraph.capturing import Run
from layergraph.torch2ir.indexing.module_index import ModuleIndex, other_mode
from layergraph.torch2ir.state.changes import Change
from layergraph.torch2ir.tracing.module_call import Trace
from layergraph.torch2ir.tracing.statelessness import check_unaffected
from layergraph.torch2ir.tracing.tracer import Tracer


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    make: Callable[[], Tracer]
    trace: Trace
    # That of the model; its modules may differ.
    training: bool


class Runs:
    """The runs on all ways of a model, of all its examples, and in both modes.

    Args:
        module_index: the modules of the model.
    """

    def __init__(self, module_index: ModuleIndex) -> None:
        self._module_index = module_index
        self._made: list[_Made] = []

    def run(self, run: Run, make: Callable[[], Tracer], *, is_trial: bool = False) -> Trace:
        """Return the record of one more run.

        Args:
            run: runs a tracer, made by the function that it is given.
            make: makes the tracer.
            is_trial: True: later runs are not compared with this one. Of many trials, each is
                compared with the runs of the examples only.

        Raises:
            CaptureError: it failed, or a run does something else after another one.
        """
        trace = run(make)
        self.add(make, trace, is_trial=is_trial)
        return trace

    def add(self, make: Callable[[], Tracer], trace: Trace, *, is_trial: bool = False) -> None:
        """Compare a run with those before it.

        Raises:
            CaptureError: one of them does something else after the other.
        """
        new = _Made(make, trace, self._module_index.root.module.training)
        for known in self._made:
            self._check(new, known.trace.changes)
            self._check(known, trace.changes)
        if not is_trial:
            self._made.append(new)

    def _check(self, made: _Made, changes: list[Change]) -> None:
        if changes:
            with self._mode_of(made):
                check_unaffected(made.make, made.trace, changes)

    def _mode_of(self, made: _Made) -> AbstractContextManager[object]:
        is_own = made.training == self._module_index.root.module.training
        return nullcontext() if is_own else other_mode(self._module_index)
