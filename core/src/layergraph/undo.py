"""A stack of undo functions: they restore the process after a conversion, and after an interrupt.

Python may raise a KeyboardInterrupt between any two lines: before a context enters its ``try``, or
while its ``finally`` runs. So each change pushes its undo function first. The outermost call runs
the functions that are left, twice, because an interrupt may come during the first time.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar

import torch
from torch.utils import _device, _python_dispatch

from layergraph.torch_versions import note_modes

P = ParamSpec("P")
T = TypeVar("T")

Undo = Callable[[], object]
"""A function that restores something. It may be called twice."""


class _Pending(threading.local):
    # One stack for each thread: a thread cannot restore the modes of another one.
    def __init__(self) -> None:
        self.undos: list[Undo] = []
        # The error that the caller handles: errors raised meanwhile have it in their context.
        self.handled: BaseException | None = None


_pending = _Pending()


@contextmanager
def undoing(undo: Undo) -> Iterator[None]:
    """Call an undo function at the end of the context. Make the change inside the context."""
    depth = len(_pending.undos)
    _pending.undos.append(undo)
    try:
        yield
    finally:
        _undo(depth)


def undone(function: Callable[[], T]) -> T:
    """Call a function, then run the undo functions that it leaves, and restore torch's modes."""
    depth, modes, collects = len(_pending.undos), Modes(), gc.isenabled()
    gradients, device = torch.is_grad_enabled(), vars(_device)["CURRENT_DEVICE"]
    handled, _pending.handled = _pending.handled, sys.exc_info()[1]

    def put_back() -> None:
        # First the modes, so that they do not see the undo functions run.
        modes.put_back()
        _undo(depth)
        torch._C._set_grad_enabled(gradients)
        vars(_device)["CURRENT_DEVICE"] = device
        _pending.handled = handled
        if collects:
            gc.enable()

    try:
        try:
            return _called(function)
        except KeyboardInterrupt as error:
            # The traceback keeps half-entered contexts alive. They would end with it, at any later
            # time, and set modes then.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            put_back()
    finally:
        put_back()


def _called(function: Callable[[], T]) -> T:
    try:
        return function()
    except Exception as error:
        raise_interrupt(error)
        raise


def undoes(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that :func:`undone` calls it."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return undone(partial(function, *args, **kwargs))

    return call


def raise_interrupt(error: BaseException) -> None:
    """Raise the KeyboardInterrupt in the context of an error, if there is one.

    Code that handles an interrupt may raise another error, which would hide the interrupt. A
    SystemExit is not raised: a handler that exits breaks its contract.
    """
    cause: BaseException | None = error
    while cause is not None and cause is not _pending.handled:
        if isinstance(cause, KeyboardInterrupt):
            raise cause from None
        cause = cause.__context__


def _undo(depth: int) -> None:
    failed: Exception | None = None
    undos = _pending.undos
    while len(undos) > depth:
        try:
            undos[-1]()
        except Exception as error:
            # Run the other functions first, and raise at the end.
            failed = failed or error
        # Not before the call: an interrupt between the two would lose the function.
        undos.pop()
    if failed is not None:
        raise failed


class Modes:
    """A copy of torch's stacks of function modes and dispatch modes, and of their flags."""

    def __init__(self) -> None:
        self._stacks = [(stack, stack.modes()) for stack in _STACKS]
        self._flags = {name: getattr(_python_dispatch, name) for name in _FLAGS}
        self._functions_are_seen = _get_torch_function_state()
        self._excluded = [torch._C._dispatch_tls_is_dispatch_key_excluded(key) for key in _KEYS]

    def put_back(self) -> None:
        """Restore the stacks and flags."""
        # The C++ guards that set these states may live as long as the traceback of an interrupt.
        _set_torch_function_state(self._functions_are_seen)
        for key, was in zip(_KEYS, self._excluded, strict=True):
            torch._C._dispatch_tls_set_dispatch_key_excluded(key, was)
        for stack, modes in self._stacks:
            stack.put_back(modes)
        for name, value in self._flags.items():
            setattr(_python_dispatch, name, value)
            if name == _KNOWN_TO_C:
                note_modes(value)


class _Stack:
    def __init__(self, kind: str, *given: None) -> None:
        self._length: Callable[[], int] = getattr(torch._C, f"_len_torch_{kind}_stack")
        self._at: Callable[[int], Any] = getattr(torch._C, f"_get_{kind}_stack_at")
        self._pop = partial(getattr(torch._C, f"_pop_torch_{kind}_stack"), *given)
        self._push: Callable[[Any], Any] = getattr(torch._C, f"_push_on_torch_{kind}_stack")

    def modes(self) -> list[Any]:
        """Return the modes, the outermost first."""
        return [self._at(index) for index in range(self._length())]

    def put_back(self, modes: list[Any]) -> None:
        """Restore the stack to a list of modes, the outermost first."""
        now = self.modes()
        shared = 0
        while shared < min(len(now), len(modes)) and now[shared] is modes[shared]:
            shared += 1
        while self._length() > shared:
            self._pop()
        for mode in modes[shared:]:
            self._push(mode)


_get_torch_function_state: Callable[[], Any] = vars(torch._C)["_get_torch_function_state"]
_set_torch_function_state: Callable[[Any], None] = vars(torch._C)["_set_torch_function_state"]
_KEYS = (torch._C.DispatchKey.Python, torch._C.DispatchKey.PythonTLSSnapshot)
_STACKS = (_Stack("function"), _Stack("dispatch", None))
# torch keeps a copy of this flag in C++.
_KNOWN_TO_C = "_is_in_any_mode_without_ignore_compile_internals"
_FLAGS = [name for name in vars(_python_dispatch) if name.startswith("_is_in_")]
