"""Conversion of a model's result to standard containers."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from numbers import Number
from typing import Any

import torch

from layergraph.errors import CaptureError
from layergraph.ir.names import is_argument_name
from layergraph.outputs import Output

_ATOMS = (
    *(type(None), str, bytes, slice, type, Number),
    *(torch.Tensor, torch.device, torch.dtype, torch.layout, torch.memory_format),
)


def _unknown(_: object) -> None:
    """Return None: no object has a value in the graph."""


def opened(
    result: Any, value_of: Callable[[Any], Any] = _unknown, around: tuple[int, ...] = ()
) -> Any:
    """Return a result with foreign objects replaced by outputs with their fields, or by dicts.

    Args:
        result: what the model returns.
        value_of: returns the replacement of an object; None to use the object's fields.
        around: the ids of the containers and objects around the result.

    Raises:
        CaptureError: an object contains itself.
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

    if isinstance(result, Output):  # of a rebuilt model
        found = {key: inside(value) for key, value in dict.items(result)}
        return Output(found, result._name, result._absent)
    if isinstance(result, Mapping):
        found = {key: inside(value) for key, value in result.items()}
        return _with_fields(result, found) if _reads_like_its_keys(result) else found
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*map(inside, result))
    if type(result) is torch.Size or type(result).__module__ == torch.return_types.__name__:
        return type(result)(list(map(inside, result)))
    if isinstance(result, tuple | list):
        kind = tuple if isinstance(result, tuple) else list
        return kind(map(inside, result))
    return _attributes(result, inside, is_result=value_of is not _unknown)


def _check_items(result: Any) -> None:
    """Refuse an object whose class overrides the access to its items.

    Raises:
        CaptureError: the class does.
    """
    if hasattr(result, "__dict__") and not isinstance(result, type):
        for name in ("__iter__", "__getitem__"):
            if hasattr(type(result), name):
                raise CaptureError(
                    f"the model returns a {type(result).__name__}, whose class defines {name}, "
                    "which a graph cannot hold; return a tuple, a dict or a dataclass without it"
                )


def _attributes(result: Any, inside: Callable[[Any], Any], *, is_result: bool) -> Any:
    """Return an output with the attributes of an object; an object without attributes unchanged."""
    if is_result:
        _check_items(result)
    if dataclasses.is_dataclass(result):
        fields = [field.name for field in dataclasses.fields(result)]
        held = {name: getattr(result, name) for name in fields if hasattr(result, name)}
        return _with_fields(result, {name: inside(each) for name, each in held.items()})
    if callable(result) or isinstance(result, enum.Enum) or not hasattr(result, "__dict__"):
        return result
    held = {
        name: inside(value)
        for name, value in vars(result).items()
        if not isinstance(value, type) and not callable(value)
    }
    return _with_fields(result, held)


def _reads_like_its_keys(result: Mapping[Any, Any]) -> bool:
    """Return whether the attributes of an instance of a dict subclass equal its items."""
    return type(result) is not dict and all(
        value is not None and isinstance(key, str) and getattr(result, key, None) is value
        for key, value in result.items()
    )


def _with_fields(result: Any, found: dict[Any, Any]) -> dict[Any, Any]:
    """Return an output with the fields of an object; a dict if their names allow none."""
    name = type(result).__name__
    absent = [each for each, value in found.items() if value is None]
    if isinstance(result, dict) and dataclasses.is_dataclass(result):
        fields = [field.name for field in dataclasses.fields(result)]
        absent = [each for each in fields if each not in found]
        if any(getattr(result, each, None) is not None for each in absent):
            return found
    is_named = all(is_argument_name(each) for each in (name, *found, *absent))
    if not is_named or not found or any(each.startswith("_") for each in (*found, *absent)):
        return found
    held = {key: value for key, value in found.items() if value is not None}
    return Output(held, name, tuple(absent))
