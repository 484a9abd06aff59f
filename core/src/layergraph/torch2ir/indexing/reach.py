"""A search for the objects that a model's code reaches by globals, closures, defaults, attributes.

The search reads each function, also of libraries, before the function runs for the first time. A
function can only change objects that it reaches by a name: a global, a member of a module or class,
a variable of its closure, its defaults and attributes; and the contents of these. The search does
not read the code of torch, of numpy and of the standard library.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn

from layergraph.functions.foreign import applied_class
from layergraph.torch2ir.indexing.followed import (
    OPEN,
    PLAIN,
    followed_bases,
    is_followed,
    read_names,
)
from layergraph.torch2ir.indexing.opaque import home_of, members_of
from layergraph.torch2ir.indexing.reached import Code, Label, Place, ReachedState
from layergraph.torch2ir.state.query_homes import homes_inside, is_watched
from layergraph.torch2ir.state.query_stand_ins import watched
from layergraph.torch2ir.state.snapshots import Spot, is_iterator, keeper_of, slots_of


class Reach(ReachedState):
    """Finds the objects that a model's code reaches, and passes each to the listeners.

    Args:
        modules: the modules of the model; each attribute is a separate object.

    Attributes:
        codes: the functions that have run, by ``id``.
        computed: the results of functions with a cache, by ``id`` of the function and by key.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        # Keep the objects alive, because their ids are keys. The default generators count as seen:
        # the code that records seeding restores them.
        given = (*modules, torch.default_generator, *torch.cuda.default_generators)
        self._seen: dict[int, Any] = {id(each): each for each in given}
        self.codes: dict[int, types.CodeType] = {}
        self.computed: dict[int, dict[Any, Any]] = {}
        self._watched = watched()
        self._bindings: dict[int, Any] = {}
        self._classes: set[type] = set()
        self._looked: set[tuple[int, frozenset[str]]] = set()
        self._pending: list[tuple[Any, Label, Code, Place | None, str]] = []

    def enter(self, frame: types.FrameType) -> None:
        """Read a function that is about to run."""
        code = frame.f_code
        self.codes[id(code)] = code
        members = frame.f_globals
        if not is_followed(members.get("__name__")):
            return
        names, assigns, _ = read_names(code)
        self.keep_scope(members, names)
        if assigns:
            self._rebound(frame, code)
        self._scope(members, names, code)
        if code.co_argcount or code.co_freevars:
            self._bound(frame.f_locals, names, code)
        for name in names & sys.modules.keys():
            self._member(sys.modules[name], names, code)
        self.walk()

    def add(
        self,
        value: Any,
        label: Label,
        code: Code = None,
        place: Place | None = None,
        path: str = "",
    ) -> None:
        """Add a reached object; :meth:`walk` follows it later."""
        if not self._is_known(value):
            self._pending.append((value, label, code, place, path))

    def seen(self) -> Collection[Any]:
        """Return all objects reached so far."""
        return self._seen.values()

    def walk(self) -> None:
        """Follow all objects that were added."""
        while self._pending:
            self._visit(*self._pending.pop())

    # --- names ---

    def _rebound(self, frame: types.FrameType, code: types.CodeType) -> None:
        """Add the targets of assignments: globals, and members of modules, classes, functions."""
        members = frame.f_globals
        self._binding(members, (None, members.get("__name__")), code)
        named = [members[name] for name in members.keys() & set(code.co_names)]
        for value in (*named, *frame.f_locals.values()):
            kind = type(value)
            if issubclass(kind, types.ModuleType) and is_followed(value.__dict__.get("__name__")):
                self._binding(value.__dict__, (None, value.__name__), code)
            elif kind is types.FunctionType and is_followed(value.__module__):
                self._binding(value.__dict__, _of(value), code)
            elif kind not in PLAIN:
                cls: Any = value if issubclass(kind, type) else kind
                for base in followed_bases(cls):
                    self._binding(base, _of(base), code)

    def _binding(self, holder: Any, label: Label, code: types.CodeType) -> None:
        if id(holder) not in self._bindings:
            self._bindings[id(holder)] = holder
            self.keep(holder, label, code)

    def _scope(self, members: dict[str, Any], names: frozenset[str], code: types.CodeType) -> None:
        if (id(members), names) in self._looked:
            return
        self._looked.add((id(members), names))
        owner: Label = (None, members.get("__name__"))
        for name in members.keys() & names:
            value = members[name]
            if issubclass(type(value), _NAMESPACES):
                self._member(value, names, code)
            else:
                self.add(value, (owner, name), code, (members, name))

    def _is_known(self, value: Any) -> bool:
        """Return whether a value needs no further work; nearly all are known already."""
        kind = type(value)
        if kind in PLAIN or (kind is tuple and PLAIN.issuperset(map(type, value))):
            return True
        if id(value) in self._watched or (kind in _PATCHED and _is_patched(kind, value)):
            return False
        return id(value) in self._seen

    def _member(self, owner: Any, names: frozenset[str], code: types.CodeType) -> None:
        """Add the members of a module or a class that code names."""
        if issubclass(type(owner), types.ModuleType):
            name = owner.__dict__.get("__name__")
            if is_followed(name):
                members = owner.__dict__
                # A package may hold itself. With ``getattr``, code may reach any member.
                others = frozenset(members) if "getattr" in names else names
                self._scope(members, others - {name.rpartition(".")[2]}, code)
        elif issubclass(type(owner), type) and is_followed(owner.__module__):
            self._class(owner, code)
            # Code can get members of an enumeration by a text, too.
            others = names | vars(owner).get("_member_map_", {}).keys()
            for base in followed_bases(owner):
                members = base.__dict__
                for name in members.keys() & others:
                    self.add(members[name], (_of(base), name), code, (base, name))

    def _bound(
        self, variables: dict[str, Any], names: frozenset[str], code: types.CodeType
    ) -> None:
        """Add what a function reaches by its closure and by ``self``."""
        # A comprehension reads local variables of the function around it, which may be new objects.
        is_comprehension = code.co_name in _COMPREHENSIONS
        for name in () if is_comprehension else code.co_freevars:
            value = variables.get(name)
            if not issubclass(type(value), _NAMESPACES):
                self.add(value, ((None, code.co_qualname), name), code)
        given = code.co_varnames[: code.co_argcount]
        for value in map(variables.get, (*code.co_freevars, *given)):
            if issubclass(type(value), _NAMESPACES):
                self._member(value, names, code)
        if given:
            first = variables.get(given[0])
            cls = first if issubclass(type(first), type) else type(first)
            self._member(cls, names | {code.co_name}, code)

    def _class(self, cls: Any, code: Code) -> None:
        for base in followed_bases(cls):
            if base in self._classes:
                continue
            self._classes.add(base)
            self._keep_inside(base)
            if _CACHES.isdisjoint(map(type, base.__dict__.values())):
                continue
            for name, member in base.__dict__.items():
                if type(member) in _CACHES and is_cached(member):
                    self.add(member, (_of(base), name), code, (base, name))

    def _keep_inside(self, code: Any) -> None:
        """Add the functions that report the state of torch in a class or a function."""
        for holder, name, value in homes_inside(code):
            self.keep_callable((holder, name), value)

    # --- values ---

    def _visit(self, value: Any, label: Label, code: Code, place: Place | None, path: str) -> None:
        kind = type(value)
        if place is not None and _is_patched(kind, value):
            self.keep_callable(place, value)
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if kind is types.FunctionType:
            self._function(value, label, path)
        elif kind in _HOLDING:
            for name in _HOLDING[kind]:
                self.add(getattr(value, name), label, code, None, path)
        elif issubclass(kind, type):
            self._class(value, code)
        elif issubclass(kind, tuple | frozenset):
            base = tuple if issubclass(kind, tuple) else frozenset
            self._items(base.__iter__(value), label, code, path)
        elif kind is types.MappingProxyType:
            self._items(value.values(), label, code, path)
        elif not issubclass(kind, types.ModuleType):
            self._object(value, label, code, place, path)

    def _function(self, function: types.FunctionType, label: Label, path: str) -> None:
        code = function.__code__
        closure = function.__closure__ or ()
        rebinds = closure and read_names(code)[2]
        for name, cell in zip(code.co_freevars, closure, strict=False):
            contents = _contents(cell)
            if rebinds:
                self.keep(cell, (label, name), code, path)
            self.add(contents, (label, name), code, (cell, "cell_contents"), path)
        if not is_followed(function.__module__):
            # A wrapper calls the function that it holds.
            self.add(function.__dict__.get("__wrapped__"), label, code, None, path)
            return
        self._keep_inside(function)
        if function.__dict__:
            self._binding(function.__dict__, label, code)
        for name, value in function.__dict__.items():
            self.add(value, (label, name), code, (function.__dict__, name), path)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.add(value, (label, "a default"), code, None, path)

    def _object(self, value: Any, label: Label, code: Code, place: Place | None, path: str) -> None:
        kind = type(value)
        if is_iterator(kind):
            self.keep(Spot(place, value), label, code, path)
            return
        if keeper_of(kind) is not None:
            self.keep(value, label, code, path, place)
            for base in (dict, list, set, deque):
                if issubclass(kind, base):
                    self._inside(base, value, label, code, path)
        home = home_of(kind).partition(".")[0]
        if home not in OPEN and not is_followed(home):
            return
        self._class(kind, code)
        members, slots = members_of(value), slots_of(value)
        if members is not None:
            self.keep(members, label, code, path)
            self._inside(dict, members, label, code, path)
        if slots is not None:
            self.keep(slots, label, code, path)
            for name, each in slots.read().items():
                self.add(each, (label, name), code, None, path)

    def _inside(self, base: Any, value: Any, label: Label, code: Code, path: str) -> None:
        # Reading a subclass may run its own code.
        if base is list:
            for index, each in enumerate(list.__iter__(value)):
                place = (value, index) if _is_patched(type(each), each) else None
                self.add(each, label, code, place, path)
        elif base is not dict:
            self._items(base.__iter__(value), label, code, path)
        elif not PLAIN.issuperset(map(type, dict.values(value))):
            for key, each in dict.items(value):
                self.add(each, (label, key), code, (value, key), path)

    def _items(self, values: Iterable[Any], label: Label, code: Code, path: str) -> None:
        for each in values:
            self.add(each, label, code, None, path)


_HOLDING: dict[type, tuple[str, ...]] = {
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset"),
    functools.cached_property: ("func",),
    functools.partial: ("func", "args", "keywords"),
    functools.partialmethod: ("func", "args", "keywords"),
    functools._lru_cache_wrapper: ("__wrapped__",),
    functools.singledispatchmethod: ("func", "dispatcher"),
    types.MethodType: ("__func__", "__self__"),
}

_NAMESPACES = (types.ModuleType, type)

_COMPREHENSIONS = frozenset(f"<{each}>" for each in "genexpr listcomp setcomp dictcomp".split())
_METHODS = (types.BuiltinMethodType, types.MethodType)

_CACHES = frozenset({functools._lru_cache_wrapper, staticmethod, classmethod})


# Nearly all functions that a run patches have one of these types.
_PATCHED = _CACHES | {*_METHODS, functools.partial, tuple}


def _is_patched(kind: type, value: Any) -> bool:
    """Return whether a run patches the places of a value."""
    if kind in _CACHES and is_cached(value):
        return True
    return is_watched(value) or (kind in _METHODS and applied_class(value) is not None)


def is_cached(member: Any) -> bool:
    """Return whether a function caches its results."""
    inside = member.__func__ if isinstance(member, staticmethod | classmethod) else member
    return type(inside) is functools._lru_cache_wrapper


def _of(owner: Any) -> Label:
    return None, f"{owner.__module__}.{owner.__qualname__}"


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the cell is still empty
        return None
