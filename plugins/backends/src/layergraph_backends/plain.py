"""Plain Python values of a model, which need no handler."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

from layergraph.ir.values import Record, Symbol, leaves, map_leaves
from layergraph.literals import torch_value


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()
"""The value of an unsupported step, and of all steps that depend on it."""

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), Symbol)
_OF_TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format)


def is_plain(value: Any) -> bool:
    """Return whether a value contains no value of the target.

    Example:
        >>> is_plain((1, "a", None)), is_plain([object()])
        (True, False)
    """
    return all(isinstance(leaf, (*_PLAIN, *_OF_TORCH)) for leaf in leaves(value))


def of_torch(value: Any) -> Any:
    """Return a plain value with symbols replaced by the objects of torch."""
    return map_leaves(lambda leaf: torch_value(leaf) if type(leaf) is Symbol else leaf, value)


def is_known(meta: Any) -> bool:
    """Return whether a description is a plain value rather than of a tensor or symbolic number.

    None and texts are ambiguous, because the description of a symbolic number is a text.
    """
    inside = leaves(meta)
    return bool(inside) and all(
        isinstance(leaf, (bool, int, float, complex, *_OF_TORCH)) for leaf in inside
    )


def computed(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, Any]:
    """Compute a call of a Python function on plain values, or an element of a container.

    Args:
        function: its full name.
        args: the arguments by position, with values of the target.
        kwargs: the arguments by name.

    Returns:
        Whether this is such a call, and its value.
    """
    home, _, name = function.partition(".")
    if home != "operator" or kwargs:
        return False, None
    if name == "getitem" and len(args) == 2:
        return _part(*args)
    called: Callable[..., Any] | None = getattr(operator, name, None)
    if called is None or not all(map(_is_number, args)):
        return False, None
    try:
        return True, called(*args)
    except (ArithmeticError, TypeError, ValueError):
        return False, None


def _part(value: Any, key: Any) -> tuple[bool, Any]:
    if isinstance(value, Record) and isinstance(key, int):
        value = tuple(value.fields.values())
    if not isinstance(value, tuple | list | dict) or not is_plain(key):
        return False, None
    try:
        return True, value[key]
    except (IndexError, KeyError, TypeError):
        return False, None


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float | complex)
