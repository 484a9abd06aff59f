"""One conversion: unwrap, index the modules, run the model, fold its calls, merge both modes."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

import torch
from torch import nn

from layergraph.capturing import Capturer, CaptureRequest, Example, Modes, Values
from layergraph.errors import (
    CaptureError,
    LayergraphError,
    PluginWarning,
    Unsupported,
    first_line,
)
from layergraph.ir import ROOT, Implementation, Ir, TensorSpec, check_attributes
from layergraph.ir.regions import check_regions
from layergraph.plugins import Hooks
from layergraph.tensors.state import Memory
from layergraph.torch2ir.capturers import capturer_for
from layergraph.torch2ir.folding.fold import Folded
from layergraph.torch2ir.folding.modes import guard_modes, merged
from layergraph.torch2ir.indexing.answers import ask
from layergraph.torch2ir.indexing.kept_modes import clears_tensors
from layergraph.torch2ir.indexing.module_index import ModuleIndex, ModuleInfo, other_mode
from layergraph.torch2ir.indexing.module_refusals import Found
from layergraph.torch2ir.indexing.tensor_specs import describe_tensors
from layergraph.torch2ir.indexing.unhandled import advice, unhandled
from layergraph.torch2ir.state.global_state import REMEDY
from layergraph.torch2ir.tracing.module_call import Trace
from layergraph.torch2ir.tracing.other_mode import mode_calls, mode_readings
from layergraph.torch2ir.tracing.statelessness import check_stateless
from layergraph.torch2ir.tracing.tracer import Tracer
from layergraph.torch2ir.tracing.uncompiled import outside_fake_mode, uncompiled
from layergraph.torch2ir.tracing.unsupported import unsupported
from layergraph.torch2ir.unwrapping import PlainModel, is_on_meta, unwrapped


def convert(
    hooks: Hooks,
    model: nn.Module,
    examples: Sequence[Example],
    values: Values,
    modes: Modes,
    finishing: list[Callable[[], None]],
) -> Ir:
    """Return the IR of a model: see :func:`layergraph.to_ir`.

    ``finishing`` receives functions to call after the capture.
    """
    for name, said, sayable in (("values", values, Values), ("modes", modes, Modes)):
        if said not in get_args(sayable):
            listed = ", ".join(get_args(sayable))
            raise CaptureError(f"{name} is {said!r}; say one of {listed}")
    try:
        on_meta = is_on_meta(examples)
        computes = bool(examples) and not on_meta
        with unwrapped(hooks, model, needs_numbers=computes, to_meta=on_meta) as plain:
            with outside_fake_mode(), uncompiled(plain.model):
                _refuse_fakes()
                ir = _converted(hooks, plain, examples, values, modes, finishing)
            plain.annotate(ir)
            return ir
    except (LayergraphError, PluginWarning):  # a filter may turn a warning into an error
        raise
    except Exception as error:
        raise CaptureError(
            f"the capture of {type(model).__qualname__} ends with {type(error).__name__}: "
            f"{first_line(error)}; this is a fault of layergraph, please report it"
        ) from error


def _converted(
    hooks: Hooks,
    plain: PlainModel,
    examples: Sequence[Example],
    values: Values,
    modes: Modes,
    finishing: list[Callable[[], None]],
) -> Ir:
    if not isinstance(plain.model, nn.Module):
        raise CaptureError(f"{plain.model!r} is no torch.nn.Module; convert a module")
    found = Found()
    module_index = ModuleIndex(plain.model, partial(ask, hooks, found), hooks.tensor_kinds)
    _advise(module_index)
    memory = Memory(hooks.tensor_kinds)
    keys, tensors = describe_tensors(module_index, memory, found, plain.numbers)
    if not found.is_runnable:
        raise unsupported(found)
    request = CaptureRequest(module_index, keys, memory, hooks, examples, values, modes)
    capturer = capturer_for(request)
    finishing.append(capturer.finish)
    if module_index.root.is_leaf and module_index.root.answer is not None:
        found += capturer.faults()
        ir = Ir([_leaf_model(module_index.root, module_index.root.answer, tensors[""])])
    elif found and not request.has_example:
        # The model cannot run, so no further refusals can be found.
        raise unsupported(found)
    else:
        try:
            ir = _captured(request, capturer, tensors)
            while not capturer.confirms(ir):
                ir = _captured(request, capturer, tensors)
        except CaptureError as error:
            full = _with_all(error, found, capturer.faults)
            if full is error:
                raise
            raise full from error
    if found:
        raise unsupported(found)
    check_attributes(ir)
    _refuse_leaks(ir)
    return ir


def _captured(
    request: CaptureRequest, capturer: Capturer, tensors: dict[str, dict[str, TensorSpec]]
) -> Ir:
    """Run a model and fold its calls, in both modes if its code reads the mode.

    If only one mode is wanted, or one IR cannot hold both, the IR is that of the model's own mode,
    with a guard for the mode of each module whose mode the code reads. An IR cannot hold both if
    training clears tensors that evaluation has cached.

    Raises:
        CaptureError: the capture in the model's own mode fails.
    """
    trace = _run(capturer)
    if mode_calls(trace.scopes):
        is_own = request.modes == "own" or trace.is_other_refused
        if not (is_own or any(clears_tensors(each.module) for each in request.module_index)):
            ir = _both(request.module_index, capturer, trace, tensors)
            if ir is not None:
                return ir
        guard_modes(request.module_index, trace)
    return Folded(request.module_index, trace, tensors).draft.ir()


def _both(
    module_index: ModuleIndex,
    capturer: Capturer,
    trace: Trace,
    tensors: dict[str, dict[str, TensorSpec]],
) -> Ir | None:
    """Return the IR of both modes; None if no IR can hold both."""
    folded = Folded(module_index, trace, tensors)
    readings = mode_readings(mode_calls(trace.scopes))
    other, second, twin = trace.other, trace.in_other_mode, None
    if other is not None:
        # The replay has already recorded the other mode.
        if not other.differs:
            return folded.draft.ir()
        readings |= other.readings
        twin = folded.with_other(other) if second is None else None
    if twin is None:
        if second is None:
            try:
                with other_mode(module_index):
                    second = _run(capturer)
            except CaptureError:
                return None
        readings |= mode_readings(mode_calls(second.scopes))
        twin = Folded(module_index, second, tensors).draft
    return merged(module_index, folded.draft, twin, readings)


def _run(capturer: Capturer) -> Trace:
    """Run a model along each of its ways."""
    try:
        return capturer.complete(_run_once(capturer.tracer), _run_once)
    except CaptureError:
        if not capturer.retries():
            raise
    return _run(capturer)


def _run_once(make: Callable[[], Tracer]) -> Trace:
    """Run a model; retry if another thread may have changed torch's state during the run."""
    try:
        return check_stateless(make)
    except CaptureError as error:
        of_state = any(each.reason.endswith(REMEDY) for each in error.unsupported)
        if not of_state or threading.active_count() == 1:
            raise
    return check_stateless(make)


def _advise(module_index: ModuleIndex) -> None:
    missing = unhandled(module_index)
    if missing:
        warnings.warn(advice(missing), PluginWarning, stacklevel=2)


def _refuse_fakes() -> None:
    """Refuse to capture under a mode that replaces computed tensors, such as FakeTensorMode."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise CaptureError(
            "a transform of torch.func (vmap, grad …) is running, in which nothing is computed as "
            "the model computes it; convert the model outside of it"
        )
    for key in torch._C._TorchDispatchModeKey.__members__.values():
        mode = torch._C._get_dispatch_mode(key)
        if mode is not None:
            raise CaptureError(
                f"a {type(mode).__name__} is active, under which nothing is computed as the model "
                "computes it; leave it before converting a model"
            )


def _refuse_leaks(ir: Ir) -> None:
    """Refuse a model that enters a region, such as ``no_grad``, and does not leave it."""
    for each in ir.values():
        for graph in each.graphs:
            for node, message, remedy in check_regions(graph):
                raise CaptureError(f"in {each.name!r}, node {node!r}: {message}; {remedy}")


def _with_all(
    error: CaptureError, found: list[Unsupported], unfit_for: Callable[[], list[Unsupported]]
) -> CaptureError:
    """Return the error of a capture, extended by the earlier refusals."""
    is_of_others = not isinstance(error.__cause__, LayergraphError | None)
    own = unfit_for() if is_of_others else []
    if own:
        return unsupported([*found, *error.unsupported[:-1], *own])
    return unsupported([*found, *error.unsupported]) if found else error


def _leaf_model(
    root: ModuleInfo, answer: Implementation, tensors: dict[str, TensorSpec]
) -> Implementation:
    return Implementation(
        type=answer.type,
        data=answer.data,
        name=ROOT,
        tensors=tensors,
        training=None if root.module.training else False,
    )
