"""A watch on Python's calls that sees each function before it first runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container
from threading import get_ident
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class Watch:
    """Reports each function that Python calls while the watch is on.

    The watch slows Python down, so it is off during recorded calls. It works together with
    debuggers and coverage tools.

    Args:
        see: takes the frame of each function before the function runs.
        seen: the functions to skip, by ``id`` of their code.
    """

    def __init__(self, see: Callable[[FrameType], None], seen: Container[int]) -> None:
        self._is_on = False
        self._other: Any = None
        self._thread = 0

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            if id(frame.f_code) not in seen:
                see(frame)
            return None if self._other is None else self._other(frame, event, arg)

        self._trace = trace

    def on(self, function: Callable[..., T]) -> Callable[..., T]:
        """Wrap a function so that the watch is on while it runs."""

        def call(*args: Any, **kwargs: Any) -> T:
            was_on = self._is_on
            if not was_on:
                self._other, self._thread = sys.gettrace(), get_ident()
            self._is_on = True
            sys.settrace(self._trace)
            try:
                return function(*args, **kwargs)
            finally:
                self._is_on = was_on
                sys.settrace(self._trace if was_on else self._other)

        return call

    def off(self, function: Callable[..., T]) -> Callable[..., T]:
        """Wrap a function so that the watch is off while it runs."""

        def call(*args: Any, **kwargs: Any) -> T:
            # Calls of other threads come here too.
            if not self._is_on or get_ident() != self._thread:
                return function(*args, **kwargs)
            self._is_on = False
            sys.settrace(self._other)
            try:
                return function(*args, **kwargs)
            finally:
                self._is_on = True
                sys.settrace(self._trace)

        return call
