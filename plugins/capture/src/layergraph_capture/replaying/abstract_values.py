"""Metadata of results, computed without their numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from layergraph.ir import Symbol
from layergraph.tensors.memory import PLAIN_CLASSES, is_plain
from layergraph_capture.arguments import tensors_in
from layergraph_capture.symbolic.symbolic_int import SymbolicNumber

PLAIN = frozenset({bool, int, float, complex, str, bytes, Symbol})
# For fewer numbers than this, computing is faster than running on meta tensors.
FEW = 2**16


def metadata_of(value: Any, device: torch.device | None = None) -> Hashable:
    """Return all facts of a value that code can see without reading numbers of tensors.

    Args:
        value: a result or an argument of a function.
        device: the device that meta tensors stand for.
    """
    with torch._C.DisableTorchFunction():
        return _metadata_of(value, device)


def _metadata_of(value: Any, device: torch.device | None) -> Hashable:
    cls = type(value)
    if isinstance(value, torch.Tensor):
        place = device if device is not None and value.is_meta else value.device
        return cls, value.shape, value.dtype, place, value.layout, value.requires_grad
    if issubclass(cls, SymbolicNumber):
        return cls, value.value, value.key()
    if cls in PLAIN:
        # repr distinguishes -0.0 from 0.0, and NaN equals NaN.
        return cls, repr(value)
    if cls is slice:
        value = value.start, value.stop, value.step
    if isinstance(value, dict):
        return cls, *[(key, _metadata_of(each, device)) for key, each in value.items()]
    if isinstance(value, tuple | list):
        return cls, *[_metadata_of(each, device) for each in value]
    return cls, id(value)


class AbstractValues:
    """Finds the metadata of the results of functions with as little computation as possible."""

    def __init__(self) -> None:
        # Each entry keeps the arguments alive, so that ids stay unique.
        self._known: dict[Hashable, tuple[Hashable, Any]] = {}

    def of_result(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Hashable:
        """Return the metadata of the result of a function that changes none of its arguments."""
        asked = func, metadata_of((args, kwargs))
        if asked not in self._known:
            self._known[asked] = _kind_of_result(func, args, kwargs), (args, kwargs)
        return self._known[asked][0]


def _kind_of_result(func: Callable[..., Any], args: Any, kwargs: Any) -> Hashable:
    given = [*tensors_in((args, kwargs))]
    devices = {each.device for each in given}
    if len(devices) == 1 and sum(map(torch.numel, given)) > FEW and all(map(_is_simple, given)):
        # Some functions need the numbers.
        with contextlib.suppress(Exception):
            on_meta = pytree.tree_map_only(torch.Tensor, _on_meta, (args, kwargs))
            return metadata_of(func(*on_meta[0], **on_meta[1]), devices.pop())
    return metadata_of(func(*args, **kwargs))


def _is_simple(tensor: torch.Tensor) -> bool:
    return type(tensor) in PLAIN_CLASSES and is_plain(tensor)


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return meta.requires_grad_(tensor.requires_grad)
