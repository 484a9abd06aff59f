"""Patches that record calls of torch's higher-order functions, such as ``torch.cond``.

No mode of torch sees these calls as the model's code makes them. So during a capture each of the
functions has other code, which passes its arguments to the tracer. The patch works for every
reference to the function, because we replace its code and not its name.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from torch._functorch import eager_transforms, vmap

from layergraph.control_flow.transforms import higher_order
from layergraph.torch2ir.tracing.patches import Patch

Handler = Callable[..., Any]

_NAME = "the name of the function"
_handlers: dict[str, Handler] = {}


def higher_order_calls(
    is_here: Callable[[], bool],
    record: Callable[[str, Handler, tuple[Any, ...], dict[str, Any]], Any],
) -> Iterator[Patch]:
    """Yield the patches that pass these calls to the tracer.

    Args:
        is_here: returns whether the tracer takes the call.
        record: takes the name of the function, the unpatched function, and the arguments.
    """
    for name, function in (higher_order_functions() | _unheld()).items():
        original = _copy(function)
        yield _handlers, name, _handler(name, original, is_here, record)
        yield function, "__code__", _trampoline_for(name, function.__code__.co_freevars)


@functools.cache
def higher_order_functions() -> dict[str, FunctionType]:
    """Return torch's higher-order functions by their node names."""
    found = dict(higher_order())
    # The functions of torch.func call this one, with other arguments.
    found["layergraph.vmap"] = vmap.vmap_impl
    found["layergraph.grad"] = eager_transforms.grad_impl
    found["layergraph.grad_and_value"] = eager_transforms.grad_and_value_impl
    found["layergraph.jvp"] = eager_transforms.jvp
    found["layergraph.vjp"] = eager_transforms.vjp
    # These return functions.
    found["layergraph.jacfwd"] = eager_transforms.jacfwd
    found["layergraph.jacrev"] = eager_transforms.jacrev
    return {name: each for name, each in found.items() if type(each) is FunctionType}


def _unheld() -> dict[str, FunctionType]:
    """Return the imported functions that no graph can hold."""
    home = "torch.nn.attention.flex_attention"
    members = vars(sys.modules[home]) if home in sys.modules else {}
    names = ("flex_attention", "create_block_mask", "create_mask")
    found = {f"{home}.{name}": members.get(name) for name in names}
    found["torch.func.linearize"] = eager_transforms.linearize
    return {name: each for name, each in found.items() if type(each) is FunctionType}


def _copy(function: FunctionType) -> FunctionType:
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _handler(
    name: str,
    original: Handler,
    is_here: Callable[[], bool],
    record: Callable[[str, Handler, tuple[Any, ...], dict[str, Any]], Any],
) -> Handler:
    def call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not is_here():
            return original(*args, **kwargs)
        return record(name, original, args, kwargs)

    return call


def handed_over(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Pass a call to the tracer that is running."""
    return _handlers[name](args, kwargs)


def _trampoline(*args: Any, **kwargs: Any) -> Any:
    # This code runs with the globals of the patched function, so it has to import its own name.
    from layergraph.torch2ir.tracing.higher_order import handed_over

    return handed_over("the name of the function", args, kwargs)


def _trampoline_for(name: str, free: tuple[str, ...]) -> Any:
    code = _trampoline.__code__
    constants = tuple([name if each == _NAME else each for each in code.co_consts])
    # A function keeps its closure, so the new code needs the same free variables.
    return code.replace(co_consts=constants, co_freevars=free)
