"""Records or refuses what a model's code asks of the state of torch, by whatever name it asks.

Functions of ``torch._C`` tell settings; all of torch's own that tell them call these. Where code
has kept one under a name of its own, that very object is looked for, where names are.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import re
import sys
import weakref
from collections.abc import Callable, Iterator
from inspect import CO_GENERATOR
from types import (
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

import torch
from torch import backends

from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.indexing.reach import OF_TORCH, PLAIN, is_followed, members_of
from layergraph.torch2ir.state.generators import foreign_generators
from layergraph.torch2ir.state.global_state import getters, setters
from layergraph.torch2ir.tracing.lines import (
    TORCH_FOLDER,
    is_capturing,
    is_capturing_package,
)
from layergraph.torch2ir.tracing.observer import Observer
from layergraph.torch2ir.tracing.patches import ENTRIES, Patch

_BACKENDS = f"{TORCH_FOLDER}backends{os.sep}"


def state_queries(capture: Observer, module_index: ModuleIndex) -> Iterator[Patch]:
    """The patches that show what code asks of torch's state, and tell when it sets some of it."""
    yield _current, "capture", capture
    whole, parts = _homes()
    for members, stand_ins in whole:
        yield members, ENTRIES, stand_ins
    yield from _replaced([*parts, *module_index.once(_kept)])
    yield backends.ContextProp, "__get__", _property_asked(capture)
    yield backends.ContextProp, "__set__", _property_set(capture)


def queries_of(module_index: ModuleIndex, scope: dict[str, Any]) -> Iterator[Patch]:
    """Likewise, in the globals of code that is about to run, unless they were looked at before."""
    if all(scope is not each for each in module_index.once(_scopes)):
        yield from _replaced(list(_in_scope(scope)))


class _Current:
    """The capture that is going on, the innermost one: the stand-ins are the same for all."""

    capture: Observer | None = None


_current = _Current()


def _recording() -> Observer | None:
    capture = _current.capture
    return capture if capture is not None and capture.is_recording() else None


@functools.cache
def _stand_ins() -> dict[int, Any]:
    """The stand-in of each watched object, by its ``id``."""
    watched = _watched().items()
    found = {key: functools.partial(call, original) for key, (original, call) in watched}
    return {**found, id(_GENERATOR): _Generator()}


def _replaced(homes: list[Home]) -> Iterator[Patch]:
    stand_ins = _stand_ins()
    generator = stand_ins[id(_GENERATOR)]

    def stand_in(value: Any) -> Any:
        if type(value) is tuple:
            return tuple([stand_in(each) or each for each in value])
        if type(value) is dict:
            return {name: stand_in(each) or each for name, each in value.items()}
        found = stand_ins.get(id(value))
        if found is None and type(value) is staticmethod:
            return staticmethod(stand_in(value.__func__))
        if found is None and type(value) is functools.partial:
            inner = stand_in(value.func)
            return inner and functools.partial(inner, *value.args, **value.keywords)
        if found is None and getattr(value, "__self__", None) is _GENERATOR:
            return functools.partial(_call, generator, value.__name__)
        return found

    for holder, name, value in homes:
        other = stand_in(value)
        if other is not None:
            yield holder, name, other


# --- what is watched ---


@functools.cache
def _watched() -> dict[int, tuple[Any, Callable[..., Any]]]:
    """The objects that tell or set the state of torch, by ``id``, and what is called in place."""
    of_torch = [*getters().values(), torch.get_default_device, backends.mha.get_fastpath_enabled]
    found: dict[int, tuple[Any, Callable[..., Any]]] = {}
    found |= {id(each): (each, _asked) for each in of_torch}
    found |= {id(each): (each, _set) for each in setters()}
    found |= {id(each): (each, _put_back) for each in _foreign_setters()}
    found[id(_GENERATOR)] = _GENERATOR, _call
    return found


@functools.cache
def _foreign_setters() -> list[Callable[..., Any]]:
    """The functions that set the states of the generators of Python and numpy."""
    numpy = sys.modules.get("numpy")
    return [random.setstate, *([] if numpy is None else [numpy.random.set_state])]


Home = tuple[Any, str, Any]
"""A dict or another object, the name of an entry or attribute, and what it is."""

Homes = tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[Home]]
"""The globals of modules with the names of watched objects and their stand-ins; and where there is
something that is made of one."""


def _homes() -> Homes:
    """The places of watched objects in Python's modules; each module is searched once."""
    # What is imported comes last among them.
    return _homes_in(len(sys.modules), next(reversed(sys.modules)))


@functools.lru_cache(maxsize=1)
def _homes_in(_modules: int, _newest: str) -> Homes:
    for name in sys.modules.keys() - _searched.keys():
        members: Any = getattr(sys.modules[name], "__dict__", None)
        is_theirs = _is_searched(name) or name in _HOMES
        searched = is_theirs and isinstance(members, dict)
        _searched[name] = _among(members, members) if searched else []
    stand_ins, parts, whole = _stand_ins(), [], []
    for homes in filter(None, _searched.values()):
        found = {name: stand_ins[id(value)] for _, name, value in homes if id(value) in stand_ins}
        whole.append((homes[0][0], found))
        parts += [home for home in homes if home[1] not in found]
    return whole, parts


_searched: dict[str, list[Home]] = {}
# Torch asks for itself, but where others find its functions.
_WITHOUT = (sys.stdlib_module_names | {"torch"}) - {"__main__", "random"}
_HOMES = frozenset({"torch", "torch._C", "torch.random", "torch.backends.mha"})


def _is_searched(module: str) -> bool:
    return module.partition(".")[0] not in _WITHOUT and not is_capturing_package(module)


def _among(holder: Any, members: dict[str, Any]) -> list[Home]:
    watched, values = _watched(), members.values()
    if _KEEPING.isdisjoint(map(type, values)) and watched.keys().isdisjoint(map(id, values)):
        return []
    return [
        (holder, name, value)
        for name, value in list(members.items())
        if id(value) in watched or (type(value) in _KEEPING and _is_kept(value))
    ]


# A getter, or a method of the generator, may be kept as one of these.
_KEEPING = frozenset({BuiltinFunctionType, functools.partial, staticmethod})


def _is_kept(value: Any) -> bool:
    while type(value) in (functools.partial, staticmethod):
        value = value.func if type(value) is functools.partial else value.__func__
    owner = getattr(value, "__self__", None)
    return id(value) in _watched() or owner is _GENERATOR


def _kept(module_index: ModuleIndex) -> Iterator[Home]:
    """The places of watched objects in the model's code, and in the modules that it names."""
    # Modules share what they hold, as a configuration.
    seen: dict[int, int] = {}
    for module_info in module_index:
        if not module_info.is_leaf:
            members = vars(module_info.module)
            names = members.keys() - OF_TORCH
            own = {name: members[name] for name in names if type(members[name]) not in _PLAINEST}
            if own:
                yield from _within(members, own, seen)
    bases = {
        base for each in module_index if not each.is_leaf for base in type(each.module).__mro__
    }
    for cls in bases:
        if not cls.__module__.startswith(("torch.", "builtins")):
            yield from _inside(cls)
    of_model = len(module_index.code_globals)
    for place, scope in enumerate(module_index.once(_scopes)):
        if place < of_model:
            yield from _in_scope(scope, seen)
        else:
            yield from _in_module(scope.get("__name__", ""), len(sys.modules))


def _scopes(module_index: ModuleIndex) -> Iterator[dict[str, Any]]:
    """The globals of the model's own code, and those of the modules that these name."""
    named: set[str] = set()
    for scope in module_index.code_globals:
        yield scope
        named |= {
            value.__name__
            if type(value) is ModuleType
            else getattr(value, "__module__", None) or ""
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
    return list(_in_scope(members)) if isinstance(members, dict) else []


def _in_scope(scope: dict[str, Any], seen: dict[int, int] | None = None) -> Iterator[Home]:
    """The places of watched objects in a module, its functions and its classes."""
    home = scope.get("__name__")
    yield from _within(scope, scope, {} if seen is None else seen)
    for value in list(scope.values()):
        if id(value) in _clean:
            continue
        if type(value) is FunctionType or (isinstance(value, type) and value.__module__ == home):
            yield from _inside(value)


def _within(
    holder: Any, members: dict[Any, Any], seen: dict[int, int], depth: int = 3
) -> Iterator[Home]:
    """Where they are kept by names, or by what these stand for.

    Args:
        holder: what has the names.
        members: what these stand for.
        seen: how deeply holders were looked into before, by ``id``.
        depth: how deeply to look into this one.
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
            # Modules of the model are looked into one by one.
            if inside and "_modules" not in inside:
                yield from _within(inside, inside, seen, depth - 1)


_PLAINEST = PLAIN - {BuiltinFunctionType}
# There is nothing to look into here: nearly all are of these.
_CLOSED = PLAIN | {FunctionType, ModuleType, type}


@functools.lru_cache(maxsize=4096)
def _is_open(kind: Any) -> bool:
    return kind is SimpleNamespace or is_followed(kind.__module__)


def _inside(code: Any) -> list[Home]:
    """The places of watched objects in a function, or in a class and its methods."""
    code = getattr(code, "__func__", code)
    if id(code) in _clean or not isinstance(code, type | FunctionType):
        return []
    found = list(_searched_inside(code))
    if not found:
        identity = id(code)
        _clean[identity] = weakref.ref(code, lambda _: _clean.pop(identity, None))
    return found


# Longer lists and dicts are of data, and so are many that are in each other.
_LONG = 1000
_MANY = 10_000
# Functions and classes that have kept none, nearly all, by ``id`` for as long as they live.
_clean: dict[int, weakref.ref[Any]] = {}


def _searched_inside(code: Any) -> Iterator[Home]:
    if isinstance(code, type):
        members = dict(vars(code))
        yield from _among(code, members)
        for value in members.values():
            if not isinstance(value, type):
                yield from _inside(value)
    else:
        for cell in code.__closure__ or ():
            with contextlib.suppress(ValueError):  # it is still empty
                yield from _among(cell, {"cell_contents": cell.cell_contents})
        for name in ("__defaults__", "__kwdefaults__"):
            kept = getattr(code, name)
            given: dict[Any, Any] = kept if type(kept) is dict else dict(enumerate(kept or ()))
            if any(map(_is_kept, given.values())):
                yield code, name, kept
            yield from itertools.islice(_within(None, given, {}), len(_among(None, given)), None)


# --- what is noted ---

# These only call what they were made from.
_WRAPPING = (f"{TORCH_FOLDER}_compile.py", f"{TORCH_FOLDER}_dynamo{os.sep}")
_ASIDE = (__file__, contextlib.__file__)


def _outermost() -> FrameType | bool | None:
    """The function of torch by which the model asks; None if by none, and False if it does not."""
    outer: FrameType | None = None
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        filename = frame.f_code.co_filename
        if filename.startswith(TORCH_FOLDER):
            if outer is None or not filename.startswith(_WRAPPING):
                outer = frame
        elif filename not in _ASIDE:
            return False if is_capturing(filename) else outer
        frame = frame.f_back
    return False


def _asked(original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    result = original(*args, **kwargs)
    capture = _recording()
    if capture is None:
        return result
    outer = _outermost()
    if outer is None:
        _note(capture, original, args, kwargs, result)
    elif isinstance(outer, FrameType) and _tells(outer.f_code):
        function: Any = vars(torch).get(outer.f_code.co_name)
        if getattr(function, "__code__", None) is outer.f_code and not outer.f_code.co_argcount:
            _note(capture, function, (), {}, capture.unrecorded(function, (), {}))
        else:
            capture.refuse(_told(outer.f_code.co_qualname))
    return result


def _tells(code: CodeType) -> bool:
    """Return whether a function of torch is there to tell a setting; others ask for themselves."""
    is_getter = _GETTER.fullmatch(code.co_qualname) or code.co_filename.startswith(_BACKENDS)
    return bool(is_getter) and not code.co_flags & CO_GENERATOR


_GETTER = re.compile(r"_?(is|are|get|has)_\w+|\w+_enabled")


def _note(
    capture: Observer, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> None:
    name = capture.functions.name_of(function)
    if name is None or kwargs:
        capture.refuse(_told(function.__name__))
    else:
        given = tuple([capture.device_type(each) for each in args])
        capture.decided(name, given, str(result) if type(result) is torch.device else result)


def _told(name: str) -> str:
    return (
        f"what {name} tells of the state of torch: a graph would have the same for good; let an "
        "argument or an attribute decide"
    )


def _set(original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    if _current.capture is not None:
        _current.capture.state.is_touched = True
    return original(*args, **kwargs)


def _put_back(original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    capture = _recording()
    # Afterwards, there is no telling that numbers were drawn.
    has_drawn = capture is not None and foreign_generators() != capture.generators
    if capture is not None and has_drawn and _outermost() is not False:
        capture.refuse("random numbers from Python or numpy; draw them from torch")
    return original(*args, **kwargs)


def _property_asked(capture: Observer) -> Callable[..., Any]:
    get: Callable[..., Any] = backends.ContextProp.__get__

    def asked(self: Any, module: Any, kind: Any = None) -> Any:
        if capture.is_recording() and _outermost() is None:
            name = next((name for name, each in vars(type(module)).items() if each is self), "")
            capture.refuse(_told(f"{module.__name__}.{name}"))
        return get(self, module, kind)

    return asked


def _property_set(capture: Observer) -> Callable[..., Any]:
    put: Callable[..., Any] = backends.ContextProp.__set__

    def is_set(self: Any, module: Any, value: Any) -> None:
        capture.state.is_touched = True
        put(self, module, value)

    return is_set


class _Generator:
    """Stands for torch's own generator while a model runs: to draw from it is all it may do."""

    __class__ = property(lambda _: torch.Generator)

    def __getattribute__(self, name: str) -> Any:
        capture = None if name in _SAID else _recording()
        if capture is not None:
            outer = _outermost()
            of_model = outer is None or (
                isinstance(outer, FrameType) and outer.f_code.co_filename.endswith("random.py")
            )
            if of_model:
                capture.state.tell("")
                capture.refuse(
                    f"{name} of the random number generator: a graph only draws from it; do this "
                    "outside of the model"
                )
        return getattr(_GENERATOR, name)


_GENERATOR = torch.default_generator
# Attributes that are the same for all generators.
_SAID = frozenset({"device", "__class__"})


def _call(holder: object, name: str, /, *args: Any, **kwargs: Any) -> Any:
    return getattr(holder, name)(*args, **kwargs)
