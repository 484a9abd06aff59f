"""Comparison of arguments and results of a run and its replay."""

from __future__ import annotations

from typing import Any

import torch

from layergraph.ir import Record
from layergraph.tensors.memory import storage_of
from layergraph_capture.arguments import tensors_in
from layergraph_capture.replaying.abstract_values import PLAIN
from layergraph_capture.symbolic.symbolic_int import SymbolicNumber


def freeze(value: Any) -> Any:
    """Return a copy of the containers of a value, which no other code can change."""
    kind = type(value)
    if kind is tuple and _CONTAINERS.isdisjoint(map(type, value)):
        return value
    if kind is tuple or kind is list:
        return kind([freeze(each) for each in value])
    if kind is dict:
        return {key: freeze(each) for key, each in dict.items(value)}
    return value


_CONTAINERS = frozenset({tuple, list, dict})


def matches(one: Any, other: Any) -> bool:
    """Return whether two values contain the same tensors and equal plain values."""
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other):
        return False
    if kind in _EXACT:
        return bool(one == other)
    if kind in PLAIN:
        # repr distinguishes -0.0 from 0.0, and NaN equals NaN.
        return repr(one) == repr(other)
    if issubclass(kind, SymbolicNumber):
        return bool(one.value == other.value and one.key() == other.key())
    if kind is slice:
        return all(
            matches(getattr(one, name), getattr(other, name)) for name in ("start", "stop", "step")
        )
    if kind is dict:
        return list(one) == list(other) and all(map(matches, one.values(), other.values()))
    if kind is tuple or kind is list or kind is torch.Size:
        return len(one) == len(other) and all(map(matches, one, other))
    return False


_EXACT = PLAIN - {float, complex}


def structure(value: Any) -> Any:
    """Return the structure of a module's arguments or result, without opaque objects.

    Such objects are new ones in each run, and nothing is computed with them.
    """
    if (
        isinstance(value, torch.Tensor | SymbolicNumber)
        or type(value) in PLAIN
        or type(value) is slice
    ):
        return value
    if isinstance(value, dict):
        return {key: structure(each) for key, each in dict.items(value)}
    if type(value) is Record:
        return value.type, structure(value.fields)
    if isinstance(value, tuple | list):
        inside = [structure(each) for each in value]
        return inside if isinstance(value, list) else tuple(inside)
    return type(value)


def is_transparent(value: Any) -> bool:
    """Return whether a value or a structure has only tensors, plain values and containers."""
    kind = type(value)
    if kind is tuple or kind is list:
        return all(map(is_transparent, value))
    if kind is dict:
        return all(map(is_transparent, value.values()))
    if value is None or value is type(None):
        return True
    return kind in PLAIN or isinstance(value, torch.Tensor | SymbolicNumber)


def with_tensors_of(value: Any, known: Any) -> Any:
    """Return a transparent value with the tensors of another value of the same structure."""
    kind = type(value)
    if kind is tuple or kind is list:
        return kind(map(with_tensors_of, value, known))
    if kind is dict:
        return {key: with_tensors_of(each, known[key]) for key, each in dict.items(value)}
    return known if isinstance(value, torch.Tensor) else value


def sizes_in(value: Any) -> tuple[torch.Size, ...]:
    """Return the shapes of the tensors in a value, in order."""
    with torch._C.DisableTorchFunction():
        return tuple([each.shape for each in tensors_in(value)])


def ids(value: Any) -> set[int]:
    """Return the ids of the tensors in nested containers."""
    return {id(each) for each in tensors_in(value)}


def memory(value: Any) -> set[int]:
    """Return the storage addresses of the tensors in nested containers."""
    with torch._C.DisableTorchFunction():
        places = {storage_of(each) for each in tensors_in(value)}
        return {each for each in places if each is not None}
