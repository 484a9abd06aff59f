"""Work in another thread, which an interrupt of the waiting thread ends."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from layergraph.undo import undoing, undone

T = TypeVar("T")


def in_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own, and wait until that has ended, whatever happens.

    An interrupt reaches the thread that waits and is meant for the one that works: it is passed on.
    The one that waits goes on only when the other one has undone what it changed, or will never
    begin.

    Args:
        function: what to call.
    """
    work = _Work(function)
    thread = threading.Thread(target=work.run, name="layergraph-capture")
    with undoing(work.stop):
        thread.start()
        work.wait()
    succeeded, result = work.outcome[0]
    if not succeeded:
        raise result
    return result  # type: ignore[no-any-return]


class _Work:
    def __init__(self, function: Callable[[], Any]) -> None:
        self.outcome: list[tuple[bool, Any]] = []
        self._function = function
        self._thread = 0
        # Who takes it decides whether the work begins.
        self._turn = [None]
        # Not Thread.join: in some versions of Python that takes a thread for ended when the wait
        # is interrupted.
        self._runs = threading.Lock()
        self._runs.acquire()
        self._is_over = False

    def run(self) -> None:
        """Do the work, unless it is called off."""
        try:
            self._thread = threading.get_ident()
            if self._takes_turn():
                self.outcome.append((True, undone(self._function)))
        except BaseException as error:
            self.outcome.append((False, error))
        finally:
            self._is_over = True
            self._runs.release()

    def _takes_turn(self) -> bool:
        try:
            self._turn.pop()
        except IndexError:
            return False
        return True

    def wait(self) -> None:
        """Wait until the work is done."""
        self._runs.acquire()

    def stop(self) -> None:
        """Call the work off, or interrupt it and wait; if it is done, do nothing."""
        if self._takes_turn():
            return
        while not self._is_over:
            identity = ctypes.c_ulong(self._thread)
            error = ctypes.py_object(KeyboardInterrupt)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, error)
            self._runs.acquire(timeout=_PATIENCE)


# Code of others may catch an interrupt and go on: after so many seconds it gets the next one.
_PATIENCE = 5.0
