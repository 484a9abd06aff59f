"""Reading and setting the fields of the dataclasses that a model is given."""

from __future__ import annotations

import dataclasses
from typing import Any

from layergraph.errors import AssumptionError


def is_dataclass_object(value: object) -> bool:
    """Return whether a value is an instance of a dataclass, and no container besides."""
    is_container = isinstance(value, dict | tuple | list)
    return dataclasses.is_dataclass(value) and not isinstance(value, type) and not is_container


def fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, in order, without those that are not set.

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
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def set_fields(parts: dict[str, Any], into: Any) -> Any:
    """Set fields of an instance of a dataclass, which may be frozen, and return it.

    Args:
        parts: the new values by name.
        into: the instance.

    Raises:
        AssumptionError: it is no instance of a dataclass, or has no field of such a name.
    """
    _check(into)
    names = {each.name for each in dataclasses.fields(into)}
    for name, value in parts.items():
        if name not in names:
            raise AssumptionError(f"a {type(into).__name__} has no field {name!r}")
        if getattr(into, name, into) is not value:
            object.__setattr__(into, name, value)
    return into


def _check(value: object) -> None:
    if not is_dataclass_object(value):
        raise AssumptionError(
            f"a {type(value).__name__} is no instance of a dataclass; give one, as at the capture"
        )
