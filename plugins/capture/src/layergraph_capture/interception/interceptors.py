"""Patches for calls that torch's modes do not see: they record or refuse these calls."""

from __future__ import annotations

import functools
import inspect
import operator
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import attention
from torch.utils import checkpoint

from layergraph.control_flow.regions import attention_kernels
from layergraph.ir import Symbol
from layergraph.tensors.memory import storage_of
from layergraph.torch2ir.code_owners import TORCH_FOLDER, is_capturing
from layergraph.torch2ir.tracing.applied_functions import Record, applied_functions
from layergraph.torch2ir.tracing.module_call import TracedValue
from layergraph.torch2ir.tracing.patches import Patch
from layergraph_capture.arguments import tensors_in
from layergraph_capture.interception.parameters import made_parameters
from layergraph_capture.interception.scripted import shown, unseen_operators
from layergraph_capture.trackers.tensors import Tensors

if TYPE_CHECKING:
    from layergraph.torch2ir.tracing.tracer import Tracer

Region = Callable[..., TracedValue]
"""A function that records the enter or exit node of a region, by function name and arguments."""


def unseen(
    capture: Tracer,
    record: Record,
    region: Region,
    tensors: Tensors,
) -> Iterator[Patch]:
    """Yield these patches.

    Args:
        capture: the tracer, which collects the refusals.
        record: records the call of an autograd.Function.
        region: records the enter or exit node of a region.
        tensors: maps tensors to their values.
    """
    yield from applied_functions(capture, tensors.keys, _checkpointed(capture, record))
    yield nn.Module, "_apply", _applied(capture)
    yield torch.jit.ScriptFunction, "__call__", _scripted(capture, tensors)
    yield torch.autocast, "__init__", _without_dtype()
    yield torch.autocast, "__enter__", _enter_autocast(capture, region)
    yield torch.autocast, "__exit__", _exit_autocast(capture, region)
    yield from _attention_kernels(capture, region)
    yield from made_parameters(capture, tensors, region)
    for holder, name, what in _UNHOLDABLE:
        yield holder, name, _refused(capture, getattr(holder, name), what)


_FROM_MEMORY = "numbers that come from outside torch while the model runs; register a buffer"
_UNHOLDABLE: tuple[tuple[Any, str, str], ...] = (
    (torch, "frombuffer", _FROM_MEMORY),
    (torch, "from_dlpack", _FROM_MEMORY),
    (torch.autograd.graph.saved_tensors_hooks, "__enter__", "hooks on saved tensors"),
    (threading.Thread, "start", "a thread"),
)


def _is_ours(frame: FrameType) -> bool:
    """Return whether the frame is of torch or of the capture."""
    filename = frame.f_code.co_filename
    return filename.startswith(TORCH_FOLDER) or is_capturing(filename)


def _checkpointed(capture: Tracer, record: Record) -> Record:
    """Record calls of autograd.Functions, except those by which torch's checkpoints work."""

    def call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cls = function.__self__
        if cls.__module__ != checkpoint.__name__:
            return record(function, args, kwargs)
        if cls is not checkpoint.CheckpointFunction:
            # Up to torch 2.9, a checkpoint reads only the grad_fn of this result. It has the saved
            # inputs as long as the result lives.
            saver = capture.unrecorded(function, args, kwargs)
            asked = operator.attrgetter("grad_fn")
            return SimpleNamespace(grad_fn=capture.unrecorded(asked, (saver,), {}), of=saver)
        # A checkpoint only calls its function again for gradients, so the graph of one call is
        # enough. The second argument says whether to restore the random state.
        checkpointed, _, *given = args
        if capture.unrecorded(_are_lost, (given,), {}):
            capture.refuse("a reentrant checkpoint of inputs without gradients; set use_reentrant")
        return checkpointed(*given)

    return call


def _are_lost(given: list[Any]) -> bool:
    """Return whether gradients are on but no tensor requires them: a checkpoint loses them."""
    tensors = [each for each in given if isinstance(each, torch.Tensor)]
    return torch.is_grad_enabled() and not any(each.requires_grad for each in tensors)


def _applied(capture: Tracer) -> Callable[..., Any]:
    """Return a stand-in for ``Module._apply`` that refuses casts and moves with an effect."""
    apply: Callable[..., Any] = nn.Module._apply

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not capture.is_recording():
            return apply(module, *args, **kwargs)
        before = capture.unrecorded(_laid, (module,), {})
        result = capture.unrecorded(apply, (module, *args), kwargs)
        if capture.unrecorded(_laid, (module,), {}) != before:
            capture.refuse("a module that is moved or cast while the model runs")
        return result

    return call


def _laid(module: nn.Module) -> list[tuple[Any, ...]]:
    """Return the device and dtype of each tensor of a module."""
    tensors = [*module.parameters(), *module.buffers()]
    return [(each.dtype, each.device, storage_of(each)) for each in tensors]


def _scripted(capture: Tracer, tensors: Tensors) -> Callable[..., Any]:
    """Return a stand-in for calls of scripted functions, which guards the sizes that they read."""
    run: Callable[..., Any] = torch.jit.ScriptFunction.__call__

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        if not capture.is_recording():
            return run(function, *args, **kwargs)
        if any(each in str(function.inlined_graph) for each in _DECIDING):
            tensors.guard_shapes(args, kwargs)
        for kind in sorted({each.device.type for each in tensors_in([args, kwargs])}):
            # Under autocast, scripted code casts differently from the same eager calls.
            is_on = capture.unrecorded(torch.is_autocast_enabled, (kind,), {})
            capture.decided("torch.is_autocast_enabled", (capture.device_type(kind),), is_on)
        # After earlier calls, torch may have optimized the function so that it computes gradients
        # itself.
        graph = shown(function.inlined_graph.copy())
        for unseen_operator in unseen_operators(graph):
            capture.refuse(
                f"{unseen_operator} in scripted code, which makes a tensor unseen by torch"
            )
        bare = torch._C._create_function_from_graph(function.name, graph)
        with torch.jit._fuser.optimized_execution(False):
            return run(bare, *_in_order(function, args, kwargs))

    return call


def _in_order(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return the arguments of a scripted function as positional ones."""
    missing = function.schema.arguments[len(args) :]
    return [*args, *[kwargs.get(each.name, each.default_value) for each in missing]]


# Operators by which scripted code reads sizes, or branches.
_DECIDING = ("prim::If", "prim::Loop", "aten::size", "aten::len", "aten::dim", "aten::numel")


def _without_dtype() -> Callable[..., None]:
    """Return a stand-in for ``autocast.__init__`` that marks regions without a dtype."""
    init: Any = torch.autocast.__init__

    @functools.wraps(init)
    def call(region: Any, device_type: str, dtype: Any = None, *args: Any, **kwargs: Any) -> None:
        init(region, device_type, dtype, *args, **kwargs)
        region._layergraph_has_dtype = dtype is not None

    return call


def _enter_autocast(capture: Tracer, record: Region) -> Callable[..., Any]:
    enter: Any = torch.autocast.__enter__

    def call(region: Any) -> Any:
        if capture.is_recording():
            has_dtype = getattr(region, "_layergraph_has_dtype", True)
            args = (
                capture.device_type(region.device),
                Symbol(str(region.fast_dtype)) if has_dtype else None,
                region._enabled,
                region._cache_enabled,
            )
            value = record("layergraph.enter_autocast", *args)
            region._layergraph_regions = [*getattr(region, "_layergraph_regions", ()), value]
            enter(region)
            capture.state.refresh()
            return region
        return enter(region)

    return call


def _exit_autocast(capture: Tracer, record: Region) -> Callable[..., Any]:
    leave: Any = torch.autocast.__exit__

    def call(region: Any, *args: Any) -> Any:
        entered: list[TracedValue] = vars(region).get("_layergraph_regions", [])
        try:
            if entered and capture.is_recording():
                record("layergraph.exit_autocast", entered.pop())
            if not entered:
                vars(region).pop("_layergraph_regions", None)
        finally:
            leave(region, *args)
            capture.state.refresh()

    return call


def _attention_kernels(capture: Tracer, record: Region) -> Iterator[Patch]:
    """Yield the patch of the function that ``sdpa_kernel`` calls on enter and exit.

    On a release of torch without this function, the change of the setting is refused.
    """
    name = "_sdpa_kernel"
    select: Any = getattr(attention, name, None)
    open_regions: dict[FrameType, TracedValue] = {}

    def call(backends: Any, *args: Any, **kwargs: Any) -> None:
        frame = sys._getframe(1)
        is_recorded = capture.is_recording() and frame.f_code is _SDPA_KERNEL.__code__
        begun = open_regions.pop(frame, None)
        if is_recorded and any((*args, *kwargs.values())):
            capture.refuse("an order of attention's kernels; leave set_priority out")
        select(backends, *args, **kwargs)
        if is_recorded and begun is not None:
            record("layergraph.select_attention", begun)
        elif is_recorded:
            kernels = capture.unrecorded(attention_kernels, (), {})
            open_regions[frame] = record("layergraph.select_attention", kernels)
        capture.state.refresh()

    if select is not None:
        yield attention, name, call


_SDPA_KERNEL: Any = inspect.unwrap(attention.sdpa_kernel)


def _refused(capture: Tracer, original: Callable[..., Any], what: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        # Torch itself calls these, too.
        if capture.is_recording() and not _is_ours(sys._getframe(1)):
            capture.refuse(what)
        return original(*args, **kwargs)

    return call
