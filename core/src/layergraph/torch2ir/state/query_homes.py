"""A search for the places that hold functions which report the state of torch.

Code may bind such a function to any name, so we search for the object itself: in modules, classes,
closures, defaults, and in the containers that these hold.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
import weakref
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

from layergraph.torch2ir.code_owners import is_own_package
from layergraph.torch2ir.indexing.followed import OF_TORCH, PLAIN, is_followed
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.indexing.opaque import attribute, home_of, is_of, members_of
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
    return [
        (holder, name, value)
        for name, value in list(members.items())
        if id(value) in known or (type(value) in _KEEPING and _is_kept(value))
    ]


# Types of objects that may be or wrap a getter, or a method of a generator.
_KEEPING = frozenset({BuiltinFunctionType, functools.partial, staticmethod})


def _is_kept(value: Any) -> bool:
    while type(value) in (functools.partial, staticmethod):
        value = value.func if type(value) is functools.partial else value.__func__
    owner = attribute(value, "__self__")
    return id(value) in watched() or owner is GENERATOR


def kept_homes(module_index: ModuleIndex) -> Iterator[Home]:
    """Yield the places of watched objects in the model's code and the modules that it names."""
    # Modules share objects, such as a configuration.
    seen: dict[int, int] = {}
    for module_info in module_index:
        if not module_info.is_leaf:
            members = vars(module_info.module)
            names = members.keys() - OF_TORCH
            own = {name: members[name] for name in names if type(members[name]) not in PLAIN}
            if own:
                yield from _within(members, own, seen)
    bases = {
        base for each in module_index if not each.is_leaf for base in type(each.module).__mro__
    }
    for cls in bases:
        if not home_of(cls).startswith(("torch.", "builtins")):
            yield from _inside(cls)
    of_model = len(module_index.code_globals)
    for place, scope in enumerate(module_index.once(scopes)):
        if place < of_model:
            yield from homes_in_scope(scope, seen)
        else:
            yield from _in_module(scope.get("__name__", ""), len(sys.modules))


def scopes(module_index: ModuleIndex) -> Iterator[dict[str, Any]]:
    """Yield the globals of the model's code, and those of the modules that these name."""
    named: set[str] = set()
    for scope in module_index.code_globals:
        yield scope
        named |= {
            value.__name__ if type(value) is ModuleType else home_of(value)
            for value in list(scope.values())
        }
    of_model = {scope.get("__name__") for scope in module_index.code_globals}
    for name in sorted(named - of_model):
        members = getattr(sys.modules.get(name), "__dict__", None)
        if _is_searched(name) and isinstance(members, dict):
            yield members


@functools.lru_cache(maxsize=1024)
def _in_module(name: str, _modules: int) -> list[Home]:
    members = getattr(sys.modules.get(name), "__dict__", None)
    return list(homes_in_scope(members)) if isinstance(members, dict) else []


def homes_in_scope(scope: dict[str, Any], seen: dict[int, int] | None = None) -> Iterator[Home]:
    """Yield the places of watched objects in a module, its functions and its classes."""
    home = scope.get("__name__")
    yield from _within(scope, scope, {} if seen is None else seen)
    for value in list(scope.values()):
        if id(value) in _clean:
            continue
        if type(value) is FunctionType or (is_of(value, type) and home_of(value) == home):
            yield from _inside(value)


def _within(
    holder: Any, members: dict[Any, Any], seen: dict[int, int], depth: int = 3
) -> Iterator[Home]:
    """Yield the places of watched objects among members, and in the values of these.

    Args:
        holder: the owner of the members.
        members: its members, by name.
        seen: the depth to which each holder was searched before, by ``id``.
        depth: the depth to which to search this one.
    """
    if seen.get(id(holder), -1) >= depth:
        return
    seen[id(holder)] = depth
    yield from _among(holder, members)
    if not depth or len(seen) > _MANY or _CLOSED.issuperset(map(type, members.values())):
        return
    for name, value in list(members.items()):
        kind: Any = type(value)
        if kind in _CLOSED:
            continue
        if kind is dict:
            yield from _within(value, value, seen, depth - 1 if len(value) < _LONG else 0)
        elif kind is list and len(value) < _LONG:
            yield from _within(value, dict(enumerate(value)), seen, depth - 1)
        elif kind is tuple and any(map(_is_kept, value[:_LONG])):
            yield holder, name, value
        elif _is_open(kind):
            inside = members_of(value)
            # The modules of the model are searched one by one.
            if inside and "_modules" not in inside:
                yield from _within(inside, inside, seen, depth - 1)


# Objects of these types contain nothing to search. Nearly all have one of these types.
_CLOSED = PLAIN | {BuiltinFunctionType, FunctionType, ModuleType, type}


@functools.lru_cache(maxsize=4096)
def _is_open(kind: Any) -> bool:
    return kind is SimpleNamespace or is_followed(home_of(kind))


def _inside(code: Any) -> list[Home]:
    """Return the places of watched objects in a function, or in a class and its methods."""
    code = attribute(code, "__func__") or code
    if id(code) in _clean or not is_of(code, (type, FunctionType)):
        return []
    found = list(_searched_inside(code))
    if not found:
        identity = id(code)
        _clean[identity] = weakref.ref(code, lambda _: _clean.pop(identity, None))
    return found


# Longer lists and dicts contain data, and so do large nested ones.
_LONG = 1000
_MANY = 10_000
# Functions and classes without a watched object, by ``id``; weak references keep ids valid.
_clean: dict[int, weakref.ref[Any]] = {}


def _searched_inside(code: Any) -> Iterator[Home]:
    if is_of(code, type):
        members = dict(vars(code))
        yield from _among(code, members)
        for value in members.values():
            if not is_of(value, type):
                yield from _inside(value)
    else:
        for cell in code.__closure__ or ():
            with contextlib.suppress(ValueError):  # the cell is still empty
                yield from _among(cell, {"cell_contents": cell.cell_contents})
        for name in ("__defaults__", "__kwdefaults__"):
            kept = getattr(code, name)
            given: dict[Any, Any] = kept if type(kept) is dict else dict(enumerate(kept or ()))
            if any(map(_is_kept, given.values())):
                yield code, name, kept
            yield from itertools.islice(_within(None, given, {}), len(_among(None, given)), None)
