"""Recording of the environment variables that a model's code reads.

A variable that is compared as text becomes a guard: the rebuilt model checks that it has the same
value. A variable that becomes a number would be a constant of the graph, so we refuse it. We also
refuse changes of the environment, and reads of the whole environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from layergraph.errors import CaptureError
from layergraph.torch2ir.code_owners import is_own_package
from layergraph.torch2ir.indexing.followed import is_followed
from layergraph.torch2ir.tracing.patches import ENTRIES, Patch
from layergraph.torch2ir.tracing.stand_ins import StandIn

if TYPE_CHECKING:
    from layergraph.torch2ir.tracing.tracer import Tracer


class EnvironmentText(str, StandIn):
    """The text of a variable, or its default, that refuses its conversion to a number."""

    capture: Tracer
    name: str

    def _number(self) -> None:
        if self.capture.is_recording():
            self.capture.refuse(
                f"a number from the environment ({self.name}): it would be a constant of the "
                "graph; read it in __init__, or pass it as an input"
            )

    def plain(self) -> str:
        """Return the text as a plain ``str``."""
        return "".join(self)

    def __float__(self) -> float:
        self._number()
        return float(str(self))

    def __int__(self) -> int:
        self._number()
        return int(str(self))

    def __str__(self) -> str:
        return self.plain()


def environment(capture: Tracer) -> Iterator[Patch]:
    """Yield the patches of the functions through which every read of a variable goes."""
    read: Any = os._Environ.__getitem__

    def told(variables: object, name: object, default: Any) -> Any:
        try:
            value = read(variables, name)
        except KeyError:
            value = None
        # Torch and Python's standard library read their own settings; only the model's reads count.
        asks = capture.is_recording() and _asks_for_model()
        if asks and isinstance(name, str | bytes):
            capture.environment(os.fsdecode(name), None if value is None else os.fsdecode(value))
        given = default if value is None else value
        if asks and isinstance(given, str):
            given = EnvironmentText(given)
            given.capture, given.name = capture, str(name)
        return given

    def getitem(variables: object, name: object) -> Any:
        value = told(variables, name, _ABSENT)
        return read(variables, name) if value is _ABSENT else value

    def get(variables: object, name: object, default: Any = None) -> Any:
        return told(variables, name, default)

    refused = {
        name: _refused(capture, vars(os._Environ)[name], reason)
        for name, reason in _REFUSED.items()
    }
    yield os._Environ, ENTRIES, {"__getitem__": getitem, "get": get, **refused}


def _refused(capture: Tracer, original: Callable[..., Any], reason: str) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        if capture.is_recording() and _asks_for_model(2):
            capture.refuse(reason)
            raise CaptureError(reason)
        return original(*args)

    return call


_CHANGE = "a change of the environment, which a graph does not make"
_ALL = "a read of the whole environment; read only the variables that matter"
_REFUSED = {"__setitem__": _CHANGE, "__delitem__": _CHANGE, "__iter__": _ALL, "__len__": _ALL}

_ABSENT = object()


def _asks_for_model(depth: int = 3) -> bool:
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None and _passes_on(frame):
        frame = frame.f_back
    return frame is not None and is_followed(frame.f_globals.get("__name__"))


def _passes_on(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    # Some frames are ours, such as that of the stand-in for ``len``.
    return name in ("os", "collections.abc", "posixpath") or is_own_package(name)
