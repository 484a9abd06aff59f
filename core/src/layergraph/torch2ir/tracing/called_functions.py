"""Facts about a function that the model calls, from its name or from its code."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

from torch import nn

from layergraph.errors import CaptureError
from layergraph.functions.operations import OPERATIONS, changes_arguments
from layergraph.functions.table import HANDING_OVER
from layergraph.ir import Value
from layergraph.torch2ir.state.global_state import may_draw
from layergraph.torch2ir.tracing.module_call import Call, StateRead

CHANGING = frozenset({"inplace", "max_norm", "out"})
"""With these arguments, a function changes a tensor in place."""

RESULTS_BY_SIZES = frozenset(
    f"torch.{name}"
    for name in (
        "Tensor.dim Tensor.size Tensor.stride Tensor.numel Tensor.dtype Tensor.device "
        "zeros_like ones_like empty_like full_like rand_like randn_like "
        "Tensor.new_zeros Tensor.new_ones Tensor.new_full Tensor.new_empty"
    ).split()
)
"""The results of these depend only on the sizes, the dtype and the device of a tensor."""


@functools.cache
def changes_its_first_argument(name: str) -> bool:
    """Return whether a function, by its name, works in place."""
    last = name.rpartition(".")[2]
    if last.endswith("__") or name.startswith("operator."):
        last = last.strip("_")
        return last in ("setitem", "delitem") or (
            last[0] == "i" and last not in ("invert", "index")
        )
    return last.endswith("_") and not last.startswith("_")


def draws(call: Call) -> bool:
    """Return whether a call may draw random numbers."""
    is_cast = call.target.rpartition(".")[2] in _CASTS
    return call.kind == "function" and not is_cast and may_draw(call.target, None)


_CASTS = frozenset("bfloat16 bool byte char double dtype float half int long short type".split())


def unnamed(function: Any) -> str:
    """Return the refusal of a function that has no name in an IR."""
    if isinstance(function, OPERATIONS):
        if changes_arguments(function):
            return f"the operation torch.ops.{function} changes its arguments"
        return (
            f"the operation torch.ops.{function} has no name in an IR; a plugin can give it one "
            "through the hook 'functions'"
        )
    name = getattr(function, "__qualname__", None) or repr(function)
    if name == "_set_grad_enabled":
        return "a graph cannot hold a region without gradients, or with them switched on again"
    return (
        f"the function {getattr(function, '__module__', None) or 'torch'}.{name} has no name in an "
        "IR; a plugin can give it one through the hook 'functions'"
    )


def open_code(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[..., Any] | None:
    """Return the Python code of a higher-order function of torch, for the tracer to trace into.

    None if no argument is a function or a module, or if the function is not written in Python. The
    code does not call ``__torch_function__`` modes, as the function itself does.
    """
    given = (*args, *kwargs.values())
    if type(function) is not FunctionType or not any(map(_is_code, given)):
        return None
    around = function.__globals__ | dict.fromkeys(HANDING_OVER, _never)
    code = FunctionType(
        function.__code__, around, function.__name__, function.__defaults__, function.__closure__
    )
    code.__kwdefaults__ = function.__kwdefaults__
    return code


def _is_code(value: Any) -> bool:
    return isinstance(value, nn.Module | FunctionType | MethodType | functools.partial)


def _never(*_: Any) -> bool:
    return False


def refuse_change_of_constant(name: str, args: tuple[Value, ...]) -> None:
    """Refuse an in-place function on a tensor that the model has not registered.

    Raises:
        CaptureError: the function changes such a tensor.
    """
    given = args[0] if args else None
    is_constant = isinstance(given, StateRead) and given.key.startswith(":")
    if is_constant and changes_its_first_argument(str(name)):
        raise CaptureError(
            f"{name} changes a tensor that the model has not registered; "
            "register it with register_buffer"
        )
