"""What a model returns, in containers that any program knows."""

from __future__ import annotations

import dataclasses
from numbers import Number
from typing import Any

import torch

from layergraph.errors import CaptureError

_ATOMS = (
    *(type(None), str, bytes, slice, type, Number),
    *(torch.Tensor, torch.device, torch.dtype, torch.layout, torch.memory_format),
)


def opened(result: Any, around: tuple[int, ...] = ()) -> Any:
    """The result with the objects of other libraries in it as dicts of what they hold.

    Raises:
        CaptureError: one of them holds itself.
    """
    if isinstance(result, _ATOMS):
        return result
    if id(result) in around:
        raise CaptureError(f"the model returns a {type(result).__name__} that holds itself")
    inner = (*around, id(result))
    if isinstance(result, dict):
        return {key: opened(value, inner) for key, value in result.items()}
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*[opened(value, inner) for value in result])
    if type(result) is torch.Size or type(result).__module__ == torch.return_types.__name__:
        return type(result)([opened(value, inner) for value in result])
    if isinstance(result, tuple | list):
        kind = tuple if isinstance(result, tuple) else list
        return kind([opened(value, inner) for value in result])
    if dataclasses.is_dataclass(result):
        fields = [field.name for field in dataclasses.fields(result)]
        return {name: opened(getattr(result, name), inner) for name in fields}
    if callable(result) or not hasattr(result, "__dict__"):
        return result
    return {
        name: opened(value, inner)
        for name, value in vars(result).items()
        if not isinstance(value, type) and not callable(value)
    }
