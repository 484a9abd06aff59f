"""The contexts around a recorded run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from layergraph.torch2ir.state.generators import without_draws
from layergraph.undo import Modes, undoing
from layergraph_capture.interception.compiled_calls import compiled_calls
from layergraph_capture.interception.torch_modes import DispatchMode
from layergraph_capture.trackers.snapshot import StateSnapshot

if TYPE_CHECKING:
    from layergraph_capture.tracer import EagerTracer


@contextmanager
def watching(run: EagerTracer, snapshot: StateSnapshot) -> Iterator[None]:
    """Return a context that passes each call to the tracer, and restores the state at the end.

    Args:
        run: the tracer.
        snapshot: the tensors of the model.
    """
    with (
        without_draws(run.generators),
        snapshot,
        run.switch.saved.of_run(),
        compiled_calls(run),
        # Also remove modes that the model left on top; exiting ours below those would fail.
        undoing(Modes().put_back),
    ):
        beneath = DispatchMode(run.switch, run.watch.off(run.aten))
        modes: tuple[Any, ...] = beneath, run.function_mode()
        for mode in modes:
            mode.__enter__()
        yield
