"""What a model returns, in containers that any program knows."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from numbers import Number
from typing import Any

import torch

from layergraph.errors import CaptureError

_ATOMS = (
    *(type(None), str, bytes, slice, type, Number),
    *(torch.Tensor, torch.device, torch.dtype, torch.layout, torch.memory_format),
)


def opened(
    result: Any, value_of: Callable[[Any], Any] = lambda _: None, around: tuple[int, ...] = ()
) -> Any:
    """The result with the objects of other libraries in it as dicts of what they hold.

    Args:
        result: what the model returns.
        value_of: returns what an object is instead; None for a dict.
        around: the ids of the containers and objects that it is in.

    Raises:
        CaptureError: one of them holds itself.
    """
    if isinstance(result, _ATOMS):
        return result
    if id(result) in around:
        raise CaptureError(f"the model returns a {type(result).__name__} that holds itself")
    known = value_of(result)
    if known is not None:
        return known
    inner = (*around, id(result))

    def inside(value: Any) -> Any:
        return opened(value, value_of, inner)

    if isinstance(result, dict):
        return {key: inside(value) for key, value in result.items()}
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*map(inside, result))
    if type(result) is torch.Size or type(result).__module__ == torch.return_types.__name__:
        return type(result)(list(map(inside, result)))
    if isinstance(result, tuple | list):
        kind = tuple if isinstance(result, tuple) else list
        return kind(map(inside, result))
    return _attributes(result, inside)


def _attributes(result: Any, inside: Callable[[Any], Any]) -> Any:
    """An object as a dict of what it holds; what holds nothing, as it is."""
    if dataclasses.is_dataclass(result):
        fields = [field.name for field in dataclasses.fields(result)]
        return {name: inside(getattr(result, name)) for name in fields}
    if callable(result) or isinstance(result, enum.Enum) or not hasattr(result, "__dict__"):
        return result
    return {
        name: inside(value)
        for name, value in vars(result).items()
        if not isinstance(value, type) and not callable(value)
    }
