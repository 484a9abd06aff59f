"""Values that a graph knows by their names: members of enumerations, functions, classes."""

from __future__ import annotations

import dataclasses
import enum
import types
from typing import Any


def is_dataclass_object(value: object) -> bool:
    """Return whether a value is an instance of a dataclass that is not also a container."""
    is_container = isinstance(value, dict | tuple | list)
    return dataclasses.is_dataclass(value) and not isinstance(value, type) and not is_container


_NAMED = (
    enum.Enum,
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
)


def name_of_named(value: Any) -> str | None:
    """Return the name of a member of an enumeration, a class or a function of a module.

    Returns:
        None for anything else, also for a function without a name that others could read.

    Example:
        >>> import math
        >>> from layergraph.named import name_of_named
        >>> name_of_named(math.sqrt)
        'math.sqrt'
    """
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    name = getattr(value, "__qualname__", "<") if isinstance(value, _NAMED) else "<"
    if "<" in name:
        return None
    if isinstance(value, types.BuiltinFunctionType) and value.__module__ is None:
        return name  # such as torch.relu
    return (
        f"{value.__module__}.{name}"
        if isinstance(getattr(value, "__module__", None), str)
        else name
    )


def text_of(value: Any) -> str | None:
    """Return a text that tells what a graph cannot hold, as the default of a parameter.

    Returns:
        The name of a member of an enumeration or of a function, the text of a dataclass of plain
        values; None for anything else.
    """
    if is_dataclass_object(value):
        held = [getattr(value, each.name, None) for each in dataclasses.fields(value)]
        return repr(value) if all(isinstance(each, _PLAIN) for each in held) else None
    return None if isinstance(value, type) else name_of_named(value)


_PLAIN = (bool, int, float, complex, str, type(None))
