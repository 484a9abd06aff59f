"""Functions with a cache: a capture does not see how earlier calls computed the cached results."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from layergraph.torch2ir.indexing.reach import Reach
from layergraph.torch2ir.tracing.observer import Observer


def uncached(capture: Observer, function: Any) -> Any:
    """Return a stand-in for a cached function that computes tensors again.

    The tracer records the new computation of tensors, and of results that depend on sizes. For
    plain arguments the stand-in returns the cached object, because all callers share it and may
    change it.
    """
    if isinstance(function, staticmethod | classmethod):
        return type(function)(uncached(capture, function.__func__))
    bare = function.__wrapped__

    @functools.wraps(bare)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not capture.is_recording():
            return function(*args, **kwargs)
        if _ALONE.issuperset(map(type, args)) and _ALONE.issuperset(map(type, kwargs.values())):
            result = capture.unrecorded(function, args, kwargs)
            if not _holds_tensors(result, 3):
                _note(capture.module_index.reach, result, bare)
                return result
        return bare(*args, **kwargs)

    # Code may ask the cache for more, and clear it.
    vars(call).update({name: getattr(function, name) for name in _OF_CACHES & {*dir(function)}})
    return call


_OF_CACHES = frozenset({"cache_clear", "cache_info", "cache_parameters"})


def _note(reach: Reach, result: Any, function: Any) -> None:
    reach.add(result, (None, f"{function.__module__}.{function.__qualname__}()"), function.__code__)
    reach.walk()


_ALONE = frozenset({bool, int, float, str, bytes, type(None), type, torch.dtype})


def _holds_tensors(value: Any, depth: int) -> bool:
    if isinstance(value, torch.Tensor | nn.Module):
        return True
    if not depth:
        return False
    if isinstance(value, dict):
        inside = [*value, *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        inside = [*value]
    else:
        inside = [*getattr(value, "__dict__", {}).values()] if not isinstance(value, type) else []
    return any(_holds_tensors(each, depth - 1) for each in inside)
