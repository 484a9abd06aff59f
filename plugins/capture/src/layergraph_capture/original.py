"""A call of the model without capture, to find the errors that it raises itself."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch

from layergraph.errors import CaptureError, Unsupported, first_line
from layergraph.torch2ir.indexing.module_index import ModuleIndex, ModuleInfo
from layergraph.torch2ir.state.changes import Unchanged
from layergraph.torch2ir.state.generators import without_draws
from layergraph.torch2ir.state.global_state import GlobalState
from layergraph.torch2ir.tracing.lines import line_of
from layergraph.torch2ir.tracing.patches import with_room_for
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.arguments import Arguments, tensors_in
from layergraph_capture.trackers.constants import Constants
from layergraph_capture.trackers.snapshot import StateSnapshot

UNFIT = "the example inputs do not fit"


def unfit(
    module_index: ModuleIndex, constants: Constants, arguments: Arguments
) -> list[Unsupported]:
    """Call the model without capture, undo its changes, and return the error that it raises."""
    args, kwargs, _ = arguments.bind(Recorder(), lambda *_: None)
    run = functools.partial(_error_of, module_index, constants, arguments, args, kwargs)
    error = with_room_for(module_index.depth, run)
    if error is None:
        return []
    module_info = _raised_in(module_index, error) or module_index.root
    cls = type(module_info.module)
    reason = (
        f"{UNFIT} {module_info.path or 'the model'!r}: the original model, called with them, "
        f"raises {type(error).__name__}: {first_line(error)}; give inputs that it takes"
    )
    if any(each.is_meta for each in tensors_in((args, kwargs))):
        reason += ", or inputs with numbers if its code looks at these: tensors on meta have none"
    line = line_of(error, module_index.code_files)
    return [Unsupported(module_info.path, f"{cls.__module__}.{cls.__qualname__}", reason, line)]


def _error_of(
    module_index: ModuleIndex,
    constants: Constants,
    arguments: Arguments,
    args: list[Any],
    kwargs: dict[str, Any],
) -> Exception | None:
    raised = None
    # The capture has reported changes that cannot be undone.
    with (
        contextlib.suppress(CaptureError),
        undone_call(module_index, constants, arguments) as kept,
    ):
        model = module_index.root.module
        kept.save(*model.parameters())
        try:
            model(*args, **kwargs)
        except Exception as error:
            raised = error
    return raised


@contextlib.contextmanager
def undone_call(
    module_index: ModuleIndex, constants: Constants, arguments: Arguments
) -> Iterator[StateSnapshot]:
    """Leave a model as it was, and the state of torch, when it has been called.

    Args:
        module_index: the model.
        constants: the tensors that it has besides.
        arguments: those of the call.

    Yields:
        The snapshot of its state. Parameters that the call may change have to be saved.

    Raises:
        CaptureError: the call makes changes that cannot be undone.
    """
    with (
        Unchanged(module_index),
        without_draws(),
        GlobalState(arguments.device).compared(),
        StateSnapshot(module_index, constants) as kept,
    ):
        yield kept


def _raised_in(module_index: ModuleIndex, error: Exception) -> ModuleInfo | None:
    """Return the innermost module of the model whose code raised the error."""
    found = None
    trace = error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, torch.nn.Module):
            found = module_index.get(owner) or found
        trace = trace.tb_next
    return found
