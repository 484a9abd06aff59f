"""The runs of a model, checked not to depend on changes that another run made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from layergraph.capturing import Run
from layergraph.torch2ir.indexing.module_index import ModuleIndex, other_mode
from layergraph.torch2ir.state.changes import Change
from layergraph.torch2ir.tracing.module_call import Trace
from layergraph.torch2ir.tracing.statelessness import check_unaffected
from layergraph.torch2ir.tracing.tracer import Tracer
from layergraph_capture.loops.frame_state import form_of_changes


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    make: Callable[[], Tracer]
    trace: Trace
    # The mode of the model; modules inside may have others.
    training: bool


class Runs:
    """The runs on all ways of a model, of all its examples, and in both modes.

    Args:
        module_index: the modules of the model.
    """

    def __init__(self, module_index: ModuleIndex) -> None:
        self._module_index = module_index
        self._made: list[_Made] = []
        # The forms of the changes in trial runs, each with the mode of the model.
        self._tried: set[tuple[str, bool]] = set()

    def run(self, run: Run, make: Callable[[], Tracer]) -> Trace:
        """Return the record of one more run.

        Args:
            run: takes a factory of tracers, runs a new tracer, and returns its record.
            make: returns a new tracer.

        Raises:
            CaptureError: the run failed, or a run makes other calls after another run.
        """
        trace = run(make)
        self.add(make, trace)
        return trace

    def try_out(self, run: Run, make: Callable[..., Tracer]) -> Trace:
        """Return the record of a trial run, with which later runs are not compared.

        The trial is compared with the runs of the examples, unless an earlier trial made changes of
        the same form, which ignores numbers and sizes of tensors.

        Args:
            run: takes a factory of tracers, runs a new tracer, and returns its record.
            make: returns a new tracer.

        Raises:
            CaptureError: the run failed, or a run makes other calls after another run.
        """
        trace = run(partial(make, knows=self._is_tried))
        if not self._is_tried(trace.changes):
            self._compare(_Made(make, trace, self._training))
            self._tried.add((form_of_changes(trace.changes), self._training))
        return trace

    def _is_tried(self, changes: Sequence[Change]) -> bool:
        return (form_of_changes(changes), self._training) in self._tried

    @property
    def _training(self) -> bool:
        return self._module_index.root.module.training

    def add(self, make: Callable[[], Tracer], trace: Trace) -> None:
        """Compare a run with the runs before it.

        Raises:
            CaptureError: a run makes other calls after another run.
        """
        new = _Made(make, trace, self._training)
        self._compare(new)
        self._made.append(new)

    def _compare(self, new: _Made) -> None:
        for known in self._made:
            self._check(new, known.trace.changes)
            self._check(known, new.trace.changes)

    def _check(self, made: _Made, changes: list[Change]) -> None:
        if changes:
            with self._mode_of(made):
                check_unaffected(made.make, made.trace, changes)

    def _mode_of(self, made: _Made) -> AbstractContextManager[object]:
        is_own = made.training == self._training
        return nullcontext() if is_own else other_mode(self._module_index)
