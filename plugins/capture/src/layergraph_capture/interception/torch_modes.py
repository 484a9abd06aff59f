"""The torch modes that observe a run, and the switch that hides calls from them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from layergraph.functions.operations import OPERATIONS, computes
from layergraph_capture.interception.saved_tensors import SavedTensors
from layergraph_capture.symbolic.symbolic_int import SYMBOLIC_TYPES, plain

Record = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""A function that makes and records a call."""


class RecordingSwitch:
    """Turns recording off for a call.

    Args:
        saved: the treatment of the tensors that autograd saves.

    Attributes:
        depth: the number of unrecorded calls that are running, one inside the other.
        calls_foreign: whether a function named by a plugin is running; it may make any tensor.
        see: takes the arguments of each unrecorded operation; None to ignore them.
        check: takes each unrecorded operation; None to ignore them.
    """

    def __init__(self, saved: SavedTensors) -> None:
        self.saved = saved
        self.depth = 0
        self.calls_foreign = False
        self.see: Callable[..., None] | None = None
        self.check: Callable[[Any], None] | None = None

    def unrecorded(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a function without recording its calls."""
        self.depth += 1
        try:
            if self.calls_foreign or self.check is not None or _may_hold_wrappers(args, kwargs):
                return self._of_others(function, args, kwargs)
            with WithoutFunctionMode(), torch._C._DisableTorchDispatch():
                given = with_numbers(args, plain)
                return function(*given, **(with_numbers(kwargs, plain) if kwargs else {}))
        finally:
            self.depth -= 1

    def _of_others(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a function that may compute gradients, or whose operations are checked."""
        is_checked = self.check is not None
        unseen = nullcontext() if is_checked else without_dispatch(with_wrappers=True)
        with WithoutFunctionMode(), unseen, self.saved.meanwhile():
            return function(*with_numbers(args, plain), **with_numbers(kwargs, plain))

    def seen(
        self,
        see: Callable[..., None],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Call a function without recording it; ``see`` takes the arguments of its operations."""
        self.depth += 1
        self.see, before = see, self.see
        try:
            with WithoutFunctionMode(), self.saved.meanwhile():
                return function(*with_numbers(args, plain), **with_numbers(kwargs, plain))
        finally:
            self.see = before
            self.depth -= 1

    def inside_modes(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call an operator that needs torch's modes, without recording it."""
        self.depth += 1
        try:
            return function(*with_numbers(args, plain), **with_numbers(kwargs, plain))
        finally:
            self.depth -= 1


class FunctionMode(TorchFunctionMode):
    """Sees the functions of torch, methods, attributes and factories.

    Args:
        switch: says whether to record.
        record: makes and records a call of a function.
        operate: makes and records a call of an operation of :data:`torch.ops`.
    """

    def __init__(self, switch: RecordingSwitch, record: Record, operate: Record) -> None:
        super().__init__()
        self._switch = switch
        self._record = record
        self._operate = operate

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if self._switch.depth:
            return func(*args, **(kwargs or {}))
        record = self._operate if isinstance(func, OPERATIONS) else self._record
        return record(func, args, kwargs or {})


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's is untyped
    """Sees the operations that torch's dispatcher calls below the functions.

    Args:
        switch: says whether to record.
        record: makes and records a call of an operation.
    """

    # Higher-order operators such as ``torch.cond`` come here too, so that we refuse them by name.
    supports_higher_order_operators = True

    def __init__(self, switch: RecordingSwitch, record: Record) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._switch = switch
        self._record = record

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if self._switch.depth and self._switch.see is not None:
            self._switch.see(args, kwargs)
        if self._switch.depth and self._switch.check is not None:
            self._switch.check(func)
        if self._switch.depth or not computes(func):
            return func(*args, **(kwargs or {}))
        return self._record(func, args, kwargs or {})


class WithoutFunctionMode:
    """Context that disables the function mode, so that torch takes its fast paths.

    It does nothing if another mode is on top.
    """

    __slots__ = ("_mode",)

    def __enter__(self) -> None:
        depth = torch._C._len_torch_function_stack()
        is_on_top = depth and type(torch._C._get_function_stack_at(depth - 1)) is FunctionMode
        self._mode = torch._C._pop_torch_function_stack() if is_on_top else None

    def __exit__(self, *_: object) -> None:
        if self._mode is not None:
            torch._C._push_on_torch_function_stack(self._mode)


def without_dispatch(with_wrappers: bool) -> AbstractContextManager[object]:
    """Return a context in which no dispatch mode sees operations.

    A wrapper tensor has no memory, so its operations must reach ``__torch_dispatch__`` of its
    class. The faster context skips that method too, and would crash the process for such a tensor.
    """
    if not with_wrappers:
        return torch._C._DisableTorchDispatch()
    included = torch._C._dispatch_tls_local_include_set()
    for key in (torch._C.DispatchKey.Python, torch._C.DispatchKey.PythonTLSSnapshot):
        included = included.remove(key)
    excluded = torch._C._dispatch_tls_local_exclude_set()
    return torch._C._ForceDispatchKeyGuard(included, excluded)


def _may_hold_wrappers(args: Any, kwargs: Any) -> bool:
    """Return whether arguments may contain anything other than plain tensors and values."""
    if not _KNOWN.issuperset(map(type, args)):
        for each in args:
            if not _is_known(each):
                return True
    return bool(kwargs) and not all(map(_is_known, kwargs.values()))


def _is_known(value: Any) -> bool:
    if isinstance(value, nn.Module):
        # A layer of torch has only these tensors.
        inside = value.modules() if value._modules else (value,)
        return all(
            _is_of_torch(type(each).__module__)
            and _KNOWN.issuperset(map(type, each._parameters.values()))
            and _KNOWN.issuperset(map(type, each._buffers.values()))
            for each in inside
        )
    if type(value) in (tuple, list):
        return _KNOWN.issuperset(map(type, value)) or all(map(_is_known, value))
    return type(value) in _KNOWN


@functools.cache
def _is_of_torch(home: str) -> bool:
    return home.startswith("torch.nn.modules.")


_KNOWN = frozenset(
    {
        *(torch.Tensor, nn.Parameter, torch.Size, *SYMBOLIC_TYPES),
        *(int, float, complex, bool, str, slice, type(None), type(...)),
        *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Generator),
    }
)


_WITHOUT_NUMBERS = frozenset(
    {torch.Tensor, nn.Parameter, int, float, bool, str, type(None), torch.dtype, torch.device}
)


def with_numbers(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a value with a function applied to each symbolic number inside."""
    kind = type(value)
    if kind in SYMBOLIC_TYPES:
        return change(value)
    if kind is tuple or kind is list:
        if _WITHOUT_NUMBERS.issuperset(map(type, value)):
            return value
        inside = [with_numbers(each, change) for each in value]
        return value if all(map(operator.is_, inside, value)) else kind(inside)
    if kind is torch.Size:
        return torch.Size([change(each) for each in value])
    if kind is dict:
        return {key: with_numbers(each, change) for key, each in value.items()}
    if kind is slice:
        return slice(change(value.start), change(value.stop), change(value.step))
    return value
