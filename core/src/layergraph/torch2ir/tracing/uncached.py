"""Functions with a cache: a capture does not see how earlier calls computed the cached results."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layergraph.torch2ir.indexing.reach import Reach

if TYPE_CHECKING:
    from layergraph.torch2ir.tracing.tracer import Tracer


def uncached(capture: Tracer, function: Any) -> Any:
    """Return a stand-in for a cached function that computes tensors again.

    The tracer records the new computation of tensors, and of results that depend on sizes. For
    plain arguments the stand-in returns the cached object, because all callers share it and may
    change it. Of other results, those without tensors are computed once in a run, and once for all
    runs if the tracer records nothing meanwhile: libraries that compile their operations, or that
    compute with symbols, are slow without their caches.
    """
    if isinstance(function, staticmethod | classmethod):
        return type(function)(uncached(capture, function.__func__))
    bare = function.__wrapped__
    reach = capture.module_index.reach
    results = _Results(reach.computed.setdefault(id(function), {}))

    @functools.wraps(bare)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not capture.is_recording():
            return function(*args, **kwargs)
        if _ALONE.issuperset(map(type, args)) and _ALONE.issuperset(map(type, kwargs.values())):
            result = capture.unrecorded(function, args, kwargs)
            if not _holds_tensors(result, 3):
                _note(reach, result, bare)
                return result
        key = None if _holds(capture.readable, (args, kwargs)) else _key(args, kwargs)
        if key is None:
            return bare(*args, **kwargs)
        for known in results.of_all_runs, results.of_run:
            if key in known:
                return known[key]
        before = capture.recorder.position
        result = bare(*args, **kwargs)
        if not _holds_tensors(result, 3):
            is_plain = capture.recorder.position == before
            (results.of_all_runs if is_plain else results.of_run)[key] = result
            _note(reach, result, bare)
        return result

    # Code may ask the cache for more, and clear it.
    vars(call).update({name: getattr(function, name) for name in _OF_CACHES & {*dir(function)}})
    return call


_OF_CACHES = frozenset({"cache_clear", "cache_info", "cache_parameters"})


class _Results:
    """The computed results of a function, by key; as our own object, they are no state of a model.

    Attributes:
        of_all_runs: the results during whose computation the tracer recorded nothing.
        of_run: the others.
    """

    def __init__(self, of_all_runs: dict[Any, Any]) -> None:
        self.of_all_runs = of_all_runs
        self.of_run: dict[Any, Any] = {}


def _note(reach: Reach, result: Any, function: Any) -> None:
    # The cache may be that of a partial, or of another object that is called.
    name = getattr(function, "__qualname__", type(function).__qualname__)
    label = (None, f"{getattr(function, '__module__', None)}.{name}()")
    reach.add(result, label, getattr(function, "__code__", None))
    reach.walk()


_ALONE = frozenset({bool, int, float, str, bytes, type(None), type, torch.dtype})


def _key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the key of a call in a cache; None if an argument has no hash."""
    key = (args, *kwargs.items()), (*map(type, args), *map(type, kwargs.values()))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _holds(kinds: frozenset[type], value: Any) -> bool:
    """Return whether a value, or an item of its containers, is a tensor or has one of the types."""
    return (
        type(value) in kinds
        or isinstance(value, _TENSORS)
        or any(_holds(kinds, each) for each in _items(value))
    )


def _holds_tensors(value: Any, depth: int) -> bool:
    """Return whether a value, an item or an attribute of it is a tensor, at most so deep inside."""
    if isinstance(value, _TENSORS) or not depth:
        return isinstance(value, _TENSORS)
    inside = _items(value)
    if not isinstance(value, (*_CONTAINERS, type)):
        inside = [*getattr(value, "__dict__", {}).values()]
    return any(_holds_tensors(each, depth - 1) for each in inside)


_TENSORS = (torch.Tensor, nn.Module)
_CONTAINERS = (dict, list, tuple, set, frozenset)


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return [*value] if isinstance(value, _CONTAINERS) else []
