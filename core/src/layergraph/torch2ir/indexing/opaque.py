"""Looks at values of the user's code without running code of their classes.

A lazy object or a proxy, such as ``flask.request``, runs code when it is asked for its class or for
an attribute: it imports a library, or raises an error. Python's ``isinstance`` asks, and so does
``getattr``.
"""

from __future__ import annotations

import contextlib
import functools
import types
from typing import Any, TypeGuard, TypeVar

T = TypeVar("T")


def is_of(value: object, kinds: type[T] | tuple[type[T], ...]) -> TypeGuard[T]:
    """Return whether a value is of some classes, by its type alone.

    Example:
        >>> from layergraph.torch2ir.indexing.opaque import is_of
        >>> is_of(True, int)
        True
    """
    return issubclass(type(value), kinds)


def attribute(value: object, name: str) -> Any:
    """Return an attribute of a value without ``__getattr__`` of its class; None if there is none.

    Example:
        >>> from layergraph.torch2ir.indexing.opaque import attribute
        >>> attribute(len, "__self__").__name__, attribute(len, "missing")
        ('builtins', None)
    """
    try:
        return object.__getattribute__(value, name)
    except Exception:  # a property of its class fails
        return None


def members_of(value: object) -> dict[str, Any] | None:
    """Return the attributes that a value itself holds; None without a dict, or if it is hidden."""
    found = attribute(value, "__dict__")
    return found if type(found) is dict else None


def home_of(value: object) -> str:
    """Return the name of the Python module of a class or function, or of a value's class.

    Empty if the class hides it.
    """
    found = value.__module__ if is_of(value, type) else attribute(value, "__module__")
    return found if type(found) is str else ""


def held_by_function(value: object) -> list[Any]:
    """Return the values that a function, a bound method or a partial holds; empty for others.

    Example:
        >>> from layergraph.torch2ir.indexing.opaque import held_by_function
        >>> held_by_function(lambda x, step=2: x + step)
        [2]
    """
    if type(value) is functools.partial:
        return [value.func, *value.args, *value.keywords.values()]
    if type(value) is types.MethodType:
        return [value.__func__, value.__self__]
    if type(value) is not types.FunctionType:
        return []
    found: list[Any] = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    for cell in value.__closure__ or ():
        with contextlib.suppress(ValueError):  # the cell is still empty
            found.append(cell.cell_contents)
    return found
