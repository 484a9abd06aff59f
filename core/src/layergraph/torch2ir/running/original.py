"""The model on its example inputs without any capture: which errors are its own."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import torch

from layergraph.errors import CaptureError, Unsupported, first_line
from layergraph.torch2ir.calls import Recorder
from layergraph.torch2ir.capture import line_of
from layergraph.torch2ir.changes import Unchanged
from layergraph.torch2ir.global_state import GlobalState
from layergraph.torch2ir.patches import with_room_for
from layergraph.torch2ir.running.arguments import Arguments
from layergraph.torch2ir.running.constants import Constants
from layergraph.torch2ir.running.keep import Kept, without_draws
from layergraph.torch2ir.survey import Survey, Surveyed

UNFIT = "the example inputs do not fit"


def unfit(survey: Survey, constants: Constants, arguments: Arguments) -> list[Unsupported]:
    """Call the model as anybody would, leave it as it was, and say what it raises, if it does."""
    args, kwargs, _ = arguments.bind(_Unbound())
    run = functools.partial(_error_of, survey, constants, arguments, args, kwargs)
    error = with_room_for(survey.depth, run)
    if error is None:
        return []
    surveyed = _raised_in(survey, error) or survey.root
    cls = type(surveyed.module)
    reason = (
        f"{UNFIT} {surveyed.path or 'the model'!r}: the original model, called with them, raises "
        f"{type(error).__name__}: {first_line(error)}; give inputs that it takes"
    )
    line = line_of(error, survey)
    return [Unsupported(surveyed.path, f"{cls.__module__}.{cls.__qualname__}", reason, line)]


def _error_of(
    survey: Survey,
    constants: Constants,
    arguments: Arguments,
    args: list[Any],
    kwargs: dict[str, Any],
) -> Exception | None:
    raised = None
    # The capture reports changes that cannot be undone.
    with (
        contextlib.suppress(CaptureError),
        Unchanged(survey),
        without_draws(),
        GlobalState(arguments.device).compared(),
        Kept(survey, constants) as kept,
    ):
        model = survey.root.module
        kept.save(*model.parameters())
        try:
            model(*args, **kwargs)
        except Exception as error:
            raised = error
    return raised


def _raised_in(survey: Survey, error: Exception) -> Surveyed | None:
    """The innermost module of the model whose code was running."""
    found = None
    trace = error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, torch.nn.Module):
            found = survey.get(owner) or found
        trace = trace.tb_next
    return found


class _Unbound:
    """Takes no note of which tensor is which argument."""

    def __init__(self) -> None:
        self.recorder = Recorder()

    def bind(self, tensor: torch.Tensor, value: object) -> None:
        """Take no note."""
