"""Functions that read and set the fields and attributes of objects among a model's arguments."""

from __future__ import annotations

import dataclasses
from typing import Any

from layergraph.errors import AssumptionError
from layergraph.named import is_dataclass_object


def is_attributed(value: object) -> bool:
    """Return whether a value is a container of a class that may have attributes of its own."""
    is_container = isinstance(value, dict | tuple | list)
    is_of_python = type(value).__module__ in ("builtins", "collections")
    return is_container and not is_of_python and hasattr(value, "__dict__")


def attributes(value: Any) -> dict[str, Any]:
    """Return what a container of a class of its own holds besides its items.

    Attributes that are fields or items of a dict, as in the outputs of transformers, are left out.

    Example:
        >>> from layergraph.functions.fields import attributes
        >>> class Batch(dict):
        ...     scale = 1
        >>> batch = Batch(x=1)
        >>> batch.scale = 2
        >>> attributes(batch)
        {'scale': 2}
    """
    found = _held(value) if isinstance(value, dict | tuple | list) else {}
    is_dataclass = dataclasses.is_dataclass(value) and not isinstance(value, type)
    names = {each.name for each in dataclasses.fields(value)} if is_dataclass else set()
    items = value if isinstance(value, dict) else {}
    return {
        name: each
        for name, each in found.items()
        if name not in names and not name.startswith("__") and items.get(name, found) is not each
    }


def fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, in order, and the other attributes.

    Raises:
        AssumptionError: the value is no instance of a dataclass.

    Example:
        >>> import dataclasses
        >>> from layergraph.functions.fields import fields
        >>> Batch = dataclasses.make_dataclass("Batch", ["tokens", "mask"])
        >>> fields(Batch([1, 2], None))
        {'tokens': [1, 2], 'mask': None}
    """
    _check(value)
    names = [each.name for each in dataclasses.fields(value)]
    found = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return found | {name: each for name, each in _held(value).items() if name not in found}


def set_fields(parts: dict[str, Any], into: Any) -> Any:
    """Set the fields of a dataclass instance, which may be frozen, and return the instance.

    Args:
        parts: the values by name: see :func:`fields`. Attributes that are missing here are deleted.
        into: the instance.

    Raises:
        AssumptionError: ``into`` is no instance of a dataclass, or cannot have such an attribute.
    """
    before = fields(into)
    names = {each.name for each in dataclasses.fields(into)}
    for name, value in parts.items():
        is_new = name not in names and (name.startswith("__") or not hasattr(into, "__dict__"))
        if is_new:
            raise AssumptionError(f"a {type(into).__name__} cannot hold {name!r}")
        if name not in before or before[name] is not value:
            object.__setattr__(into, name, value)
    for name in before.keys() - parts.keys():
        object.__delattr__(into, name)
    return into


def _held(value: Any) -> dict[str, Any]:
    held: dict[str, Any] = getattr(value, "__dict__", {})
    return held


def _check(value: object) -> None:
    if not is_dataclass_object(value):
        raise AssumptionError(
            f"a {type(value).__name__} is no instance of a dataclass; give one, as at the capture"
        )
