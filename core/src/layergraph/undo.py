"""Undoes what a conversion changes of the process, even if an interrupt comes in the middle of it.

Python may raise a KeyboardInterrupt between any two lines: before the ``finally`` of a context is
entered, or while it runs. So each change notes its undo before it is made, and the outermost place
undoes what is left over: twice, as the interrupt may come while it does so.
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
"""Makes something what it was: to do that again does no harm."""


class _LeftOver(threading.local):
    # What one thread changes, as its modes, another one cannot undo.
    def __init__(self) -> None:
        self.undos: list[Undo] = []
        # An error that the caller handles; what comes up meanwhile has it for its context.
        self.handled: BaseException | None = None


_left_over = _LeftOver()


@contextmanager
def undoing(undo: Undo) -> Iterator[None]:
    """Undo something on leaving; what is changed is changed inside."""
    depth = len(_left_over.undos)
    _left_over.undos.append(undo)
    try:
        yield
    finally:
        _undo(depth)


def undone(function: Callable[[], T]) -> T:
    """Call a function; undo what it has left over, and restore torch's modes."""
    depth, modes, collects = len(_left_over.undos), Modes(), gc.isenabled()
    gradients, device = torch.is_grad_enabled(), vars(_device)["CURRENT_DEVICE"]
    handled, _left_over.handled = _left_over.handled, sys.exc_info()[1]

    def put_back() -> None:
        # First, as what is undone is not to be seen by them.
        modes.put_back()
        _undo(depth)
        torch._C._set_grad_enabled(gradients)
        vars(_device)["CURRENT_DEVICE"] = device
        _left_over.handled = handled
        if collects:
            gc.enable()

    try:
        try:
            return _called(function)
        except KeyboardInterrupt as error:
            # Contexts that it left half entered would end with it: later, and put modes back then.
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
    """Let a function undo what it has left over, however it ends: see :func:`undone`."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return undone(partial(function, *args, **kwargs))

    return call


def raise_interrupt(error: BaseException) -> None:
    """Raise the interrupt in whose wake an error came up: it hides it.

    SystemExit and the like are none: a handler that raises them has broken its contract.
    """
    cause: BaseException | None = error
    while cause is not None and cause is not _left_over.handled:
        if isinstance(cause, KeyboardInterrupt):
            raise cause from None
        cause = cause.__context__


def _undo(depth: int) -> None:
    failed: Exception | None = None
    undos = _left_over.undos
    while len(undos) > depth:
        try:
            undos[-1]()
        except Exception as error:
            # The others can be undone all the same.
            failed = failed or error
        # Only now: an interrupt before would lose it.
        undos.pop()
    if failed is not None:
        raise failed


class Modes:
    """The modes that see the functions of torch, and what its dispatcher calls."""

    def __init__(self) -> None:
        self._stacks = [(stack, stack.modes()) for stack in _STACKS]
        self._flags = {name: getattr(_python_dispatch, name) for name in _FLAGS}
        self._functions_are_seen = _get_torch_function_state()
        self._excluded = [torch._C._dispatch_tls_is_dispatch_key_excluded(key) for key in _KEYS]

    def put_back(self) -> None:
        """Make them what they were."""
        # A guard that an interrupt has left lives as long as the error does, if not longer.
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
        """The modes, from the outermost on."""
        return [self._at(index) for index in range(self._length())]

    def put_back(self, modes: list[Any]) -> None:
        """Make them these."""
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
# Torch notes this beside its stack.
_KNOWN_TO_C = "_is_in_any_mode_without_ignore_compile_internals"
_FLAGS = [name for name in vars(_python_dispatch) if name.startswith("_is_in_")]
