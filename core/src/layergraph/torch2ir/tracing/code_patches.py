"""Patches of the Python functions through which calls of modules and functions, and imports, go."""

from __future__ import annotations

import functools
import importlib._bootstrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layergraph.functions.names import places
from layergraph.torch2ir.tracing.patches import Patch

if TYPE_CHECKING:
    from layergraph.torch2ir.tracing.tracer import Tracer


def module_patches(tracer: Tracer) -> Iterator[Patch]:
    """Yield the patches that record calls of modules, and uses of ``training``."""
    # Module.__call__ calls this one. __call__ itself is a slot: replacing a slot updates every
    # subclass, which is slow.
    yield nn.Module, "_call_impl", _module_call(tracer, nn.Module._call_impl)
    yield nn.Module, "training", _training(tracer)


def import_patches(tracer: Tracer) -> Iterator[Patch]:
    """Yield the patch that stops recording while Python imports a module."""
    # Python calls this for a module that is not loaded yet, by any statement or function.
    original: Any = importlib._bootstrap._find_and_load  # type: ignore[attr-defined]

    def find_and_load(*args: Any) -> Any:
        if not tracer.is_recording():
            return original(*args)
        with tracer.outside.accepting():
            return tracer.unrecorded(original, args, {})

    yield importlib._bootstrap, "_find_and_load", tracer.watch.off(find_and_load)


def named_functions(tracer: Tracer) -> Iterator[Patch]:
    """Yield the patches that record each function that a plugin has named as one node."""
    for members, name in tracer.functions.places:
        yield members, name, _whole(tracer, members[name])


def size_functions(tracer: Tracer) -> Iterator[Patch]:
    """Yield the patches that record functions of sizes, which function modes do not see."""
    for members, name in places((torch.broadcast_shapes,)):
        yield members, name, _whole(tracer, members[name])


def _whole(tracer: Tracer, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not tracer.is_recording():
            return function(*args, **kwargs)
        return tracer.named_function(function, args, kwargs)

    return call


def _module_call(tracer: Tracer, original: Callable[..., Any]) -> Callable[..., Any]:
    module_index = tracer.module_index

    def call(module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
        module_info = module_index.get(module) if tracer.is_recording() else None
        if module_info is None:
            # The model's code made this module in the call, or the module is inside a leaf.
            return original(module, *args, **kwargs)
        if module_info is module_index.root and tracer.is_around_forward:
            return watched(module, *args, **kwargs)
        if module_info.is_leaf and module_info is not module_index.root:
            return tracer.leaf(module_info, original, args, kwargs)
        return tracer.module(module_info, watched, args, kwargs)

    watched = tracer.watch.on(original)
    return functools.wraps(original)(tracer.watch.off(call))


def _training(tracer: Tracer) -> property:
    def get(module: nn.Module) -> bool:
        value: bool = module.__dict__["training"]
        if tracer.is_in_thread():
            tracer.mode_used(module, value)
        return value

    def put(module: nn.Module, value: bool) -> None:
        # An assignment that changes nothing in this mode may change something in the other one.
        if tracer.is_in_thread():
            tracer.mode_used(module, None)
        module.__dict__["training"] = value

    return property(get, put)
