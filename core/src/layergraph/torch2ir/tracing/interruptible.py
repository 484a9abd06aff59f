"""Work in another thread that an interrupt of the waiting thread stops."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from layergraph.undo import undoing, undone

T = TypeVar("T")


def in_thread(function: Callable[[], T]) -> T:
    """Call a function in its own thread, and always wait until that thread has ended.

    Python raises KeyboardInterrupt in the waiting thread. We pass it to the working thread, and
    return only after that thread has undone its changes, or if it will never start.
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
        # The thread that pops this item decides whether the work begins.
        self._turn = [None]
        # Not Thread.join: some versions of Python mark a thread as ended if its join is
        # interrupted.
        self._runs = threading.Lock()
        self._runs.acquire()
        self._is_over = False

    def run(self) -> None:
        """Do the work, unless it is cancelled."""
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
        """Cancel the work, or interrupt it and wait; if it is done, do nothing."""
        if self._takes_turn():
            return
        while not self._is_over:
            identity = ctypes.c_ulong(self._thread)
            error = ctypes.py_object(KeyboardInterrupt)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, error)
            self._runs.acquire(timeout=_PATIENCE)


# Foreign code may catch an interrupt and continue; after so many seconds we send the next one.
_PATIENCE = 5.0
