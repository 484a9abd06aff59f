"""Names for functions that neither torch nor a plugin names, valid in this process."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from types import BuiltinMethodType, MethodType
from typing import Any

import torch
from torch.autograd.function import FunctionMeta

from layergraph.functions.operations import (
    OPERATIONS,
    OPS,
    changes_arguments,
    computes,
    is_composite,
    is_of_torch,
)
from layergraph.ir.function_name import FunctionName

Function = Callable[..., Any]

APPLY: Any = vars(torch.autograd.Function)["apply"]
"""The function by which code calls each class of :class:`torch.autograd.Function`."""

_names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_named: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def applied_class(function: object) -> type | None:
    """Return the class of ``MyFunction.apply``, an ``apply`` of :class:`torch.autograd.Function`.

    None for all other functions.
    """
    if type(function) not in (BuiltinMethodType, MethodType):
        return None
    cls = function.__self__  # type: ignore[attr-defined]
    is_applied = isinstance(cls, FunctionMeta) and getattr(function, "__name__", "") == "apply"
    return cls if is_applied else None


def identity_of(function: Any) -> Any:
    """Return the object that identifies a function: the class for ``MyFunction.apply``."""
    return applied_class(function) or function


def callable_of(function: Any) -> Function:
    """Return the callable of an object from :func:`identity_of`: ``apply`` for a class."""
    if isinstance(function, FunctionMeta):
        return APPLY.__get__(None, function)  # type: ignore[no-any-return]
    return function  # type: ignore[no-any-return]


def full_name(cls: Any) -> str:
    """Return the module and the qualified name of a class or a function."""
    return f"{cls.__module__}.{cls.__qualname__}"


def foreign_name(function: Any) -> FunctionName | None:
    """Return a name for a function that has no other; None if a graph cannot call it.

    The name is the Python module and the qualified name. If another function of this process has
    this name, a number follows.
    """
    function = identity_of(function)
    if isinstance(function, OPERATIONS):
        is_plain = computes(function) and not changes_arguments(function)
        if is_of_torch(function) or is_composite(function) or not is_plain:
            return None
        return FunctionName(f"{OPS}{function}", function)
    if not isinstance(function, FunctionMeta):
        return None
    with _lock:
        name = _names.get(function)
        if name is None:
            home = full_name(function)
            name, number = home, 1
            while name in _named:
                number += 1
                name = f"{home}#{number}"
            _names[function] = name
            _named[name] = function
    return FunctionName(name, function)


def listed_as(name: str) -> str:
    """Return the name by which a plugin lists a function: for an overload, that of the packet."""
    if name.startswith(OPS):
        return ".".join(name.split(".")[:4])
    return name.partition("#")[0]


def listing(name: str) -> str:
    """Return the remedy for a name that no plugin lists, with the line that lists it."""
    listed = listed_as(name)
    if "<locals>" in name or "#" in name:
        row = f"lg.Factory(made={listed!r}, call=…, arguments=…)"
        return (
            "a function makes the class: define it at the top level of a module, or list its "
            f"factory by the hook 'functions' of a plugin: return [{row}]"
        )
    if listed.startswith("__main__."):
        return f"move it to a module that a plugin can name, and {listing('acme' + listed[8:])}"
    return f"list it by the hook 'functions' of a plugin: return [{listed!r}]"
