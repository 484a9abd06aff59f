"""A search for the places that hold functions which report the state of torch.

Code may bind such a function to any name, so we search for the object itself. This module searches
modules, functions and classes. The search of what the model's code reaches (``reach.py``) asks it
about each function, each class, and each value in other places.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType
from typing import Any

from layergraph.torch2ir.code_owners import is_own_package
from layergraph.torch2ir.indexing.opaque import attribute, is_of
from layergraph.torch2ir.state.query_stand_ins import GENERATOR, stand_ins, watched

Home = tuple[Any, str, Any]
"""The holder (a dict or another object), the name of an entry or attribute, and its value."""

Homes = tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[Home]]
"""The globals of modules, each with the stand-ins of its watched objects by name; and the places of
objects that wrap a watched object."""


def homes() -> Homes:
    """Return the places of watched objects in Python's modules; each module is searched once."""
    # A new import becomes the last module.
    return _homes_in(len(sys.modules), next(reversed(sys.modules)))


@functools.lru_cache(maxsize=1)
def _homes_in(_modules: int, _newest: str) -> Homes:
    for name in sys.modules.keys() - _searched.keys():
        members: Any = getattr(sys.modules[name], "__dict__", None)
        is_theirs = _is_searched(name) or name in _HOMES
        searched = is_theirs and isinstance(members, dict)
        _searched[name] = _among(members, members) if searched else []
    others, parts, whole = stand_ins(), [], []
    for searched_homes in filter(None, _searched.values()):
        found = {
            name: others[id(value)] for _, name, value in searched_homes if id(value) in others
        }
        whole.append((searched_homes[0][0], found))
        parts += [home for home in searched_homes if home[1] not in found]
    return whole, parts


_searched: dict[str, list[Home]] = {}
# The standard library and torch read the state for themselves.
_WITHOUT = (sys.stdlib_module_names | {"torch"}) - {"__main__", "random"}
_HOMES = frozenset({"torch", "torch._C", "torch.random", "torch.backends.mha"})


def _is_searched(module: str) -> bool:
    """Return whether to search a module, by its name."""
    return module.partition(".")[0] not in _WITHOUT and not is_own_package(module)


def _among(holder: Any, members: dict[str, Any]) -> list[Home]:
    known, values = watched(), members.values()
    if _KEEPING.isdisjoint(map(type, values)) and known.keys().isdisjoint(map(id, values)):
        return []
    return [(holder, name, value) for name, value in list(members.items()) if is_watched(value)]


# Types of objects that may be or wrap a getter, or a method of a generator.
_KEEPING = frozenset({BuiltinFunctionType, functools.partial, staticmethod})


def is_watched(value: Any) -> bool:
    """Return whether a value is a watched object, or a partial, static method or tuple of one."""
    kind = type(value)
    if kind is tuple:
        return any(map(_is_kept, value[:_LONG]))
    return id(value) in watched() or (kind in _KEEPING and _is_kept(value))


# A longer tuple contains data.
_LONG = 1000


def _is_kept(value: Any) -> bool:
    while type(value) in (functools.partial, staticmethod):
        value = value.func if type(value) is functools.partial else value.__func__
    owner = attribute(value, "__self__")
    return id(value) in watched() or owner is GENERATOR


def homes_inside(code: Any) -> list[Home]:
    """Return the places of watched objects in a function, or in a class and its methods."""
    code = attribute(code, "__func__") or code
    if id(code) in _clean or not is_of(code, (type, FunctionType)):
        return []
    found = list(_searched_inside(code))
    if not found:
        identity = id(code)
        _clean[identity] = weakref.ref(code, lambda _: _clean.pop(identity, None))
    return found


# Functions and classes without a watched object, by ``id``; weak references keep ids valid.
_clean: dict[int, weakref.ref[Any]] = {}


def _searched_inside(code: Any) -> Iterator[Home]:
    if is_of(code, type):
        members = dict(vars(code))
        yield from _among(code, members)
        for value in members.values():
            if not is_of(value, type):
                yield from homes_inside(value)
    else:
        for cell in code.__closure__ or ():
            with contextlib.suppress(ValueError):  # the cell is still empty
                yield from _among(cell, {"cell_contents": cell.cell_contents})
        for name in ("__defaults__", "__kwdefaults__"):
            kept = getattr(code, name)
            given: dict[Any, Any] = kept if type(kept) is dict else dict(enumerate(kept or ()))
            if any(map(is_watched, given.values())):
                yield code, name, kept
