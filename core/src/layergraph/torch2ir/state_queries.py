"""What a model's code asks of the state of torch: noted, or refused, under whatever name it asks.

Functions of ``torch._C`` tell settings; all of torch's own that tell them call these. Where code
has kept one under a name of its own, that very object is looked for, where names are.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import re
import sys
from collections.abc import Callable, Iterator
from inspect import CO_GENERATOR
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType
from typing import Any, Protocol

import torch
from torch import backends

from layergraph.functions import Functions
from layergraph.ir import Value as Plain
from layergraph.torch2ir.global_state import GlobalState, getters, setters
from layergraph.torch2ir.patches import Patch
from layergraph.torch2ir.survey import Survey

_TORCH, _OWN, _BACKENDS = [
    f"{Path(each).parent}{os.sep}" for each in (torch.__file__, __file__, backends.cpu.__file__)
]


class Queried(Protocol):
    """Who gets to know what was asked."""

    functions: Functions
    state: GlobalState

    def is_recording(self) -> bool:
        """Whether what happens now is to be recorded."""

    def refuse(self, reason: str) -> None:
        """Note that something cannot be carried over."""

    def decided(self, name: str, args: tuple[Plain, ...], result: object) -> None:
        """Note that the model may decide by what a function gives."""

    def device_type(self, kind: str) -> Plain:
        """The form of a type of device."""

    def unrecorded(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call something of which nothing is recorded."""


def state_queries(capture: Queried, survey: Survey) -> Iterator[Patch]:
    """The patches that show what code asks of torch's state, and tell when it sets some of it."""
    stand_ins = {key: make(capture) for key, make in _watched().items()}
    generator = stand_ins[id(_GENERATOR)]

    def stand_in(value: Any) -> Any:
        found = stand_ins.get(id(value))
        if found is None and type(value) is functools.partial:
            inner = stand_in(value.func)
            return inner and functools.partial(inner, *value.args, **value.keywords)
        if found is None and getattr(value, "__self__", None) is _GENERATOR:
            return getattr(generator, value.__name__)
        return found

    for holder, name, value in [*_homes(len(sys.modules)), *survey.once(_kept)]:
        other = stand_in(value)
        if other is not None:
            yield holder, name, other
    for function, defaults in survey.once(_defaults):
        others = tuple([stand_in(each) or each for each in defaults])
        yield function, "__defaults__", others
    yield backends.ContextProp, "__get__", _property_asked(capture)
    yield backends.ContextProp, "__set__", _property_set(capture)


# --- what is watched ---


@functools.cache
def _watched() -> dict[int, Callable[[Queried], Any]]:
    """What makes the stand-in of each object that tells or sets the state of torch."""
    of_torch = [*getters().values(), torch.get_default_device, backends.mha.get_fastpath_enabled]
    found: dict[int, Callable[[Queried], Any]] = {}
    for each in of_torch:
        found[id(each)] = functools.partial(_asking, each)
    for each in setters().values():
        found[id(each)] = functools.partial(_setting, each)
    for told in _foreign_states():
        found[id(told)] = functools.partial(_telling, told)
    found[id(_GENERATOR)] = _generator
    return found


@functools.cache
def _foreign_states() -> list[Callable[..., Any]]:
    """What tells the state of the generators of Python and numpy."""
    numpy = sys.modules.get("numpy")
    return [random.getstate, *([] if numpy is None else [numpy.random.get_state])]


Home = tuple[Any, str, Any]
"""A dict or another object, the name of an entry or attribute, and what it is."""


@functools.lru_cache(maxsize=2)
def _homes(_modules: int) -> list[Home]:
    """Where the watched objects are found among so many modules."""
    found: list[Home] = []
    for name, module in list(sys.modules.items()):
        package = name.partition(".")[0]
        if package not in _WITHOUT or name in _HOMES:
            members = getattr(module, "__dict__", None)
            if isinstance(members, dict):
                found += _among(members, members)
    return found


# Torch asks for itself, but where others find its functions.
_WITHOUT = (sys.stdlib_module_names | {"torch", "layergraph"}) - {"__main__", "random"}
_HOMES = frozenset({"torch", "torch._C", "torch.random", "torch.backends.mha"})


def _among(holder: Any, members: dict[str, Any]) -> list[Home]:
    watched = _watched()
    return [
        (holder, name, value)
        for name, value in list(members.items())
        if id(value) in watched or (type(value) in _KEEPING and _is_kept(value))
    ]


# What a getter, or a method of the generator, may be kept as.
_KEEPING = frozenset({BuiltinFunctionType, functools.partial})


def _is_kept(value: Any) -> bool:
    while type(value) is functools.partial:
        value = value.func
    owner = getattr(value, "__self__", None)
    return id(value) in _watched() or owner is _GENERATOR


def _kept(survey: Survey) -> Iterator[Home]:
    """Where the model's own code has kept the watched objects, but for defaults."""
    for scope in survey.code_globals:
        yield from _among(scope, scope)
    for surveyed in survey:
        if not surveyed.is_leaf:
            members = vars(surveyed.module)
            yield from _among(members, members)
    for holder, members in survey.once(_classes):
        yield from _among(holder, members)
    for function in _functions(survey):
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # it is still empty
                contents = cell.cell_contents
                yield from _among(cell, {"cell_contents": contents})


def _defaults(survey: Survey) -> Iterator[tuple[FunctionType, tuple[Any, ...]]]:
    """The functions of the model's code that have kept a watched object as a default."""
    for function in _functions(survey):
        defaults = function.__defaults__
        if defaults and any(id(each) in _watched() or _is_kept(each) for each in defaults):
            yield function, defaults


def _functions(survey: Survey) -> list[FunctionType]:
    members = [*survey.code_globals, *(members for _, members in survey.once(_classes))]
    bare = [getattr(value, "__func__", value) for each in members for value in each.values()]
    return [each for each in bare if type(each) is FunctionType]


def _classes(survey: Survey) -> Iterator[tuple[type, dict[str, Any]]]:
    """The classes of the model, and those beside them, with their members."""
    of_modules = {base for each in survey if not each.is_leaf for base in type(each.module).__mro__}
    for each in of_modules:
        if not each.__module__.startswith(("torch.", "builtins")):
            yield each, dict(vars(each))
    for scope in survey.code_globals:
        for each in list(scope.values()):
            if type(each) is type and each.__module__ == scope.get("__name__"):
                yield each, dict(vars(each))


# --- what is noted ---

# These only call what they were made from.
_WRAPPING = (contextlib.__file__, f"{_TORCH}_compile.py", f"{_TORCH}_dynamo{os.sep}")


def _outermost() -> FrameType | bool | None:
    """The function of torch by which the model asks; None if by none, and False if it does not."""
    outer: FrameType | None = None
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        filename = frame.f_code.co_filename
        if filename.startswith(_WRAPPING):
            pass
        elif filename.startswith(_TORCH):
            outer = frame
        else:
            return False if filename.startswith(_OWN) else outer
        frame = frame.f_back
    return False


def _asking(original: Callable[..., Any], capture: Queried) -> Callable[..., Any]:
    return functools.partial(_asked, original, capture)


def _asked(original: Callable[..., Any], capture: Queried, /, *args: Any, **kwargs: Any) -> Any:
    result = original(*args, **kwargs)
    outer = _outermost() if capture.is_recording() else False
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
    """Whether a function of torch is there to tell a setting; others ask for themselves."""
    is_getter = _GETTER.fullmatch(code.co_qualname) or code.co_filename.startswith(_BACKENDS)
    return bool(is_getter) and not code.co_flags & CO_GENERATOR


_GETTER = re.compile(r"_?(is|are|get|has)_\w+|\w+_enabled")


def _note(
    capture: Queried, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
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


def _setting(original: Callable[..., Any], capture: Queried) -> Callable[..., Any]:
    return functools.partial(_set, original, capture)


def _set(original: Callable[..., Any], capture: Queried, /, *args: Any, **kwargs: Any) -> Any:
    capture.state.is_touched = True
    return original(*args, **kwargs)


def _telling(original: Callable[..., Any], capture: Queried) -> Callable[..., Any]:
    return functools.partial(_told_by_others, original, capture)


def _told_by_others(original: Callable[..., Any], capture: Queried, /, *args: Any) -> Any:
    if capture.is_recording() and _outermost() is None:
        capture.refuse(f"what {original.__name__} gives, the state of a generator outside torch")
    return original(*args)


def _property_asked(capture: Queried) -> Callable[..., Any]:
    get: Callable[..., Any] = backends.ContextProp.__get__

    def asked(self: Any, module: Any, kind: Any = None) -> Any:
        if capture.is_recording() and _outermost() is None:
            name = next((name for name, each in vars(type(module)).items() if each is self), "")
            capture.refuse(_told(f"{module.__name__}.{name}"))
        return get(self, module, kind)

    return asked


def _property_set(capture: Queried) -> Callable[..., Any]:
    put: Callable[..., Any] = backends.ContextProp.__set__

    def is_set(self: Any, module: Any, value: Any) -> None:
        capture.state.is_touched = True
        put(self, module, value)

    return is_set


class _Generator(torch.Generator):
    """Stands for torch's own generator while a model runs: to draw from it is all it may do."""

    def __getattribute__(self, name: str) -> Any:
        capture: Queried = object.__getattribute__(self, "__dict__")["capture"]
        if name not in _SAID and capture.is_recording():
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
# What is the same for all.
_SAID = frozenset({"device", "__class__"})


def _generator(capture: Queried) -> _Generator:
    stand_in = _Generator()
    object.__setattr__(stand_in, "capture", capture)
    return stand_in
