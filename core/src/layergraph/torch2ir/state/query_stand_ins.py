"""The functions that report the state of torch, and the stand-ins that record their calls.

Functions of ``torch._C`` return the settings; all other getters of torch call these.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import random
import re
import sys
from collections.abc import Callable
from inspect import CO_GENERATOR
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import backends

from layergraph.torch2ir.code_owners import TORCH_FOLDER, is_capturing
from layergraph.torch2ir.state.generators import foreign_generators
from layergraph.torch2ir.state.global_state import getters, setters

if TYPE_CHECKING:
    from layergraph.torch2ir.tracing.tracer import Tracer

_BACKENDS = f"{TORCH_FOLDER}backends{os.sep}"


class Current:
    """Holds the innermost capture that is running; all captures share the stand-ins."""

    capture: Tracer | None = None


current = Current()


def _recording() -> Tracer | None:
    capture = current.capture
    return capture if capture is not None and capture.is_recording() else None


@functools.cache
def stand_ins() -> dict[int, Any]:
    """Return the stand-in of each watched object, by its ``id``."""
    pairs = watched().items()
    found = {key: functools.partial(call, original) for key, (original, call) in pairs}
    return {**found, id(GENERATOR): _Generator()}


def stand_in_of(value: Any) -> Any | None:
    """Return the stand-in of a watched object, or of a container of one; None for other values."""
    others = stand_ins()
    if id(value) in others:
        return others[id(value)]
    if type(value) is tuple:
        items = [stand_in_of(each) or each for each in value]
        return tuple(items) if any(map(operator.is_not, items, value)) else None
    if type(value) is dict:
        return {name: stand_in_of(each) or each for name, each in value.items()}
    if type(value) is staticmethod:
        inner = stand_in_of(value.__func__)
        return None if inner is None else staticmethod(inner)
    if type(value) is functools.partial:
        inner = stand_in_of(value.func)
        return inner and functools.partial(inner, *value.args, **value.keywords)
    if getattr(value, "__self__", None) is GENERATOR:
        return functools.partial(call_method, others[id(GENERATOR)], value.__name__)
    return None


# --- what is watched ---


@functools.cache
def watched() -> dict[int, tuple[Any, Callable[..., Any]]]:
    """Return the objects that read or set the state of torch, by ``id``, with their stand-ins."""
    of_torch = [*getters().values(), torch.get_default_device, backends.mha.get_fastpath_enabled]
    found: dict[int, tuple[Any, Callable[..., Any]]] = {}
    found |= {id(each): (each, _asked) for each in of_torch}
    found |= {id(each): (each, _set) for each in setters()}
    found |= {id(each): (each, _put_back) for each in _foreign_setters()}
    found[id(GENERATOR)] = GENERATOR, call_method
    return found


@functools.cache
def _foreign_setters() -> list[Callable[..., Any]]:
    """Return the functions that set the states of the generators of Python and numpy."""
    numpy = sys.modules.get("numpy")
    return [random.setstate, *([] if numpy is None else [numpy.random.set_state])]


# --- stand-ins ---

# Functions of these files only call the function that they wrap.
_WRAPPING = (f"{TORCH_FOLDER}_compile.py", f"{TORCH_FOLDER}_dynamo{os.sep}")
_ASIDE = (__file__, contextlib.__file__)


def _outermost() -> FrameType | bool | None:
    """Return the frame of torch's function that the model called.

    None if the model reads the state directly; False if torch or capture reads it for itself.
    """
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
        return _note(capture, original, args, kwargs, result)
    if isinstance(outer, FrameType) and _tells(outer.f_code):
        function: Any = vars(torch).get(outer.f_code.co_name)
        if getattr(function, "__code__", None) is outer.f_code and not outer.f_code.co_argcount:
            _note(capture, function, (), {}, capture.unrecorded(function, (), {}))
        else:
            capture.refuse(_told(outer.f_code.co_qualname))
    return result


def _tells(code: CodeType) -> bool:
    """Return whether a function of torch is a getter; others read settings for themselves."""
    is_getter = _GETTER.fullmatch(code.co_qualname) or code.co_filename.startswith(_BACKENDS)
    return bool(is_getter) and not code.co_flags & CO_GENERATOR


_GETTER = re.compile(r"_?(is|are|get|has)_\w+|\w+_enabled")


def _note(
    capture: Tracer, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> Any:
    name = capture.functions.name_of(function)
    if name is None or kwargs:
        capture.refuse(_told(function.__name__))
        return result
    given = tuple([capture.device_type(each) for each in args])
    if type(result) is torch.device:
        capture.decided(name, given, str(result))
        return result
    return capture.decided(name, given, result)


def _told(name: str) -> str:
    return (
        f"the state of torch that {name} returns: it would be a constant of the graph; branch on "
        "an argument or an attribute instead"
    )


def _set(original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    if current.capture is not None:
        current.capture.state.is_touched = True
    return original(*args, **kwargs)


def _put_back(original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    capture = _recording()
    # Compare now: after the state is set, draws cannot be detected.
    has_drawn = capture is not None and foreign_generators() != capture.generators
    if capture is not None and has_drawn and _outermost() is not False:
        capture.refuse("random numbers from Python or numpy; draw them from torch")
    return original(*args, **kwargs)


def property_asked(capture: Tracer) -> Callable[..., Any]:
    """Return the stand-in for the getter of a property of ``torch.backends``."""
    get: Callable[..., Any] = backends.ContextProp.__get__

    def asked(self: Any, module: Any, kind: Any = None) -> Any:
        result = get(self, module, kind)
        if not capture.is_recording() or _outermost() is not None:
            return result
        if capture.functions.name_of(self.getter) is not None:
            return _note(capture, self.getter, (), {}, result)
        name = next((name for name, each in vars(type(module)).items() if each is self), "")
        capture.refuse(_told(f"{module.__name__}.{name}"))
        return result

    return asked


def property_set(capture: Tracer) -> Callable[..., Any]:
    """Return the stand-in for the setter of a property of ``torch.backends``."""
    put: Callable[..., Any] = backends.ContextProp.__set__

    def is_set(self: Any, module: Any, value: Any) -> None:
        capture.state.is_touched = True
        put(self, module, value)

    return is_set


class _Generator:
    """Stand-in for torch's default generator during a run; the model may only draw from it."""

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
        return getattr(GENERATOR, name)


GENERATOR = torch.default_generator
# Attributes that are the same for all generators.
_SAID = frozenset({"device", "__class__"})


def call_method(holder: object, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call a method by its name."""
    return getattr(holder, name)(*args, **kwargs)
