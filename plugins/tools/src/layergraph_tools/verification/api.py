"""``verify``: runs every check of a table, and reports the outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import nn

from layergraph.api import default_torch2ir
from layergraph.capturing import Values
from layergraph.errors import ArgumentError, AssumptionError, LayergraphError, first_line
from layergraph.torch2ir.unwrapping import PlainModel, unwrapped
from layergraph.undo import undoes
from layergraph_tools.verification import behaviour, structure
from layergraph_tools.verification.comparison import DifferenceError
from layergraph_tools.verification.inputs import tensors_of
from layergraph_tools.verification.report import Check, Report
from layergraph_tools.verification.round_trip import RoundTrip, SkippedError, described
from layergraph_tools.verification.surroundings import restored

# Each check returns a detail for the report. Later checks use the results of earlier ones.
_CHECKS: Mapping[str, Callable[[RoundTrip], str]] = {
    "captured": structure.captured,
    "dict form": structure.dict_form,
    "rebuilt": structure.rebuilt,
    "state-dict keys": structure.state_dict_keys,
    "ties": structure.ties,
    "tensors": structure.tensors,
    "own classes": structure.own_classes,
    "given inputs": behaviour.given_inputs,
    "through a file": behaviour.through_a_file,
    "captured without inputs": behaviour.captured_without_inputs,
    "called again": behaviour.called_again,
    "fresh inputs": behaviour.fresh_inputs,
    "another batch size": behaviour.another_batch_size,
    "evaluation": behaviour.evaluation,
    "training": behaviour.training,
    "other settings": behaviour.other_settings,
    "autocast": behaviour.autocast,
    "other environment": behaviour.other_environment,
    "train() and eval()": structure.modes,
    "casts": structure.casts,
}


@undoes
def verify(
    model: nn.Module,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    values: Values = "both",
) -> Report:
    """Convert a model to an IR and back, and compare the two models.

    The checks run a copy of the model and the rebuilt model with equal seeds. They leave the model
    itself, the inputs and torch's random state unchanged.

    Args:
        model: the model, in either mode, on any device. A model in wrappers, such as those of
            ``torch.compile`` or ``fully_shard``, is compared without the wrappers; one more check
            calls it with its wrappers, in evaluation mode. If its tensors are split over processes,
            all processes must call ``verify``, with equal inputs.
        args: the positional arguments of a call. :func:`layergraph.to_ir` captures the model with
            these. Other inputs are random: floats with the same mean and standard deviation,
            integers from the given values.
        kwargs: the keyword arguments of that call. If both are None, the model is captured without
            inputs and never runs.
        values: how to capture a branch on a number in a tensor, as for :func:`layergraph.to_ir`.
            With ``"assume"``, the rebuilt model refuses inputs that take the other branch; that
            counts as ``refused``, not as ``failed``.

    Returns:
        A report. It lists the failures; the function raises no error for a failed check.

    Raises:
        ArgumentError: ``args`` is not a tuple or ``kwargs`` is not a mapping.

    Example:
        >>> import layergraph as lg, torch
        >>> report = lg.verify(torch.nn.Linear(2, 3), (torch.randn(4, 2),))
        >>> report.ok
        True
        >>> print(report.checks[3])
        Check(name='state-dict keys', status='passed', detail='2 keys')
    """
    for name, given, kind in (("args", args, tuple | list), ("kwargs", kwargs, Mapping)):
        if given is not None and not isinstance(given, kind):
            wanted = "a tuple of the positional arguments, as in (x,)"
            wanted = wanted if name == "args" else "a dict of the keyword arguments"
            raise ArgumentError(f"{name} is a {type(given).__name__}; give {wanted}")
    inputs = None if args is None and kwargs is None else (tuple(args or ()), dict(kwargs or {}))
    # state_dict() may be overridden and raise, so read parameters and buffers directly.
    is_module = isinstance(model, nn.Module)
    state = [*model.parameters(), *model.buffers()] if is_module else []
    devices = {each.device.index for each in tensors_of([inputs, state]) if each.is_cuda}
    with restored(devices), ExitStack() as unwrapping:
        plain = _plain(model, unwrapping)
        trip = RoundTrip(plain.model, inputs, values, devices)
        checks = [_outcome(name, check, trip) for name, check in _CHECKS.items()]
        unwrapping.close()
        if plain.is_wrapped:
            checks.append(_outcome("in its wrappers", partial(behaviour.in_wrappers, model), trip))
        if trip.rebuilt is None:
            return Report(checks, trip.ir)
        trip.rebuilt.reset()
        return Report(checks, trip.ir, trip.rebuilt.module)


def _plain(model: Any, unwrapping: ExitStack) -> PlainModel:
    """Return the model without its wrappers. Closing the stack puts them back."""
    hooks = default_torch2ir().hooks
    try:
        return unwrapping.enter_context(unwrapped(hooks, model, needs_numbers=True))
    except LayergraphError:  # the capture raises it again, and the report shows it then
        return PlainModel(model)


def _outcome(name: str, check: Callable[[RoundTrip], str], trip: RoundTrip) -> Check:
    try:
        return Check(name, "passed", check(trip))
    except SkippedError as error:
        return Check(name, "skipped", str(error))
    except AssumptionError as error:
        return Check(name, "refused", first_line(error))
    except DifferenceError as error:
        return Check(name, "failed", str(error))
    except Exception as error:
        return Check(name, "failed", described(error))
