"""One capture at a time in a process, because captures patch the same functions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

# mypy's stubs lack _is_owned, which the Condition of Python's own library calls.
_lock: Any = threading.RLock()


def one_at_a_time(function: Callable[[], T]) -> T:
    """Call a function while no other thread is in such a call; nested calls are allowed.

    An interrupt at any line releases the lock. A ``with`` block would keep the lock if the
    interrupt came between its body and the release.
    """
    if _lock._is_owned():
        return function()
    try:
        try:
            _lock.acquire()
            return function()
        finally:
            _release()
    finally:
        _release()


def _release() -> None:
    while _lock._is_owned():
        _lock.release()
