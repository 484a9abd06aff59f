"""Functions of a graph that take bodies: torch's transforms, and ``bound``.

A transform takes the arguments of torch's function of its name. Where that one returns a function,
the arguments of the returned function follow as a tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch

Function = Callable[..., Any]

NAMES = ("bound", "grad", "grad_and_value", "jacfwd", "jacrev", "jvp", "pullback", "vjp", "vmap")
"""The functions here that may be nodes."""

AUTOGRAD_FUNCTIONS = tuple(
    f"torch.autograd.functional.{name}" for name in "hessian hvp jacobian jvp vhp vjp".split()
)
"""The functions of torch.autograd that take a function, by node name."""


def bound(body: Function, *values: Any) -> Function:
    """Return a function that calls a body with more arguments: the values that its closure holds.

    Args:
        body: a function.
        values: the arguments to append.

    Example:
        >>> from layergraph.control_flow.transforms import bound
        >>> bound(pow, 2)(3)
        9
    """

    def function(*args: Any) -> Any:
        return body(*args, *values)

    return function


def vmap(
    body: Function,
    in_dims: Any,
    out_dims: Any,
    randomness: str,
    chunk_size: int | None,
    args: tuple[Any, ...],
) -> Any:
    """Call ``torch.vmap`` of a body.

    Example:
        >>> import torch
        >>> from layergraph.control_flow.transforms import vmap
        >>> vmap(torch.sum, 0, 0, "error", None, (torch.ones(2, 3),))
        tensor([3., 3.])
    """
    mapped = torch.vmap(body, in_dims, out_dims, randomness, chunk_size=chunk_size)
    return mapped(*args)


def grad(body: Function, argnums: Any, has_aux: bool, args: tuple[Any, ...]) -> Any:
    """Call ``torch.func.grad`` of a body.

    Example:
        >>> import torch
        >>> from layergraph.control_flow.transforms import grad
        >>> grad(torch.sum, 0, False, (torch.ones(2),))
        tensor([1., 1.])
    """
    return torch.func.grad(body, argnums, has_aux)(*args)


def grad_and_value(body: Function, argnums: Any, has_aux: bool, args: tuple[Any, ...]) -> Any:
    """Call ``torch.func.grad_and_value`` of a body: see :func:`grad`.

    Example:
        >>> import torch
        >>> from layergraph.control_flow.transforms import grad_and_value
        >>> grad_and_value(torch.sum, 0, False, (torch.ones(2),))
        (tensor([1., 1.]), tensor(2.))
    """
    return torch.func.grad_and_value(body, argnums, has_aux)(*args)


def jvp(
    body: Function,
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
    strict: bool = False,
    has_aux: bool = False,
) -> Any:
    """Call ``torch.func.jvp`` of a body.

    Example:
        >>> import torch
        >>> from layergraph.control_flow.transforms import jvp
        >>> jvp(torch.square, (torch.tensor(3.0),), (torch.tensor(1.0),))
        (tensor(9.), tensor(6.))
    """
    return torch.func.jvp(body, primals, tangents, strict=strict, has_aux=has_aux)


def jacrev(
    body: Function, argnums: Any, has_aux: bool, chunk_size: int | None, args: tuple[Any, ...]
) -> Any:
    """Call ``torch.func.jacrev`` of a body.

    Example:
        >>> import torch
        >>> from layergraph.control_flow.transforms import jacrev
        >>> jacrev(torch.square, 0, False, None, (torch.tensor([3.0]),))
        tensor([[6.]])
    """
    return torch.func.jacrev(body, argnums, has_aux=has_aux, chunk_size=chunk_size)(*args)


def jacfwd(
    body: Function, argnums: Any, has_aux: bool, randomness: str, args: tuple[Any, ...]
) -> Any:
    """Call ``torch.func.jacfwd`` of a body.

    Example:
        >>> import torch
        >>> from layergraph.control_flow.transforms import jacfwd
        >>> jacfwd(torch.square, 0, False, "error", (torch.tensor([3.0]),))
        tensor([[6.]])
    """
    return torch.func.jacfwd(body, argnums, has_aux, randomness=randomness)(*args)


class Pullback:
    """The function that ``torch.func.vjp`` returns, for :func:`pullback`.

    Args:
        function: the function.
    """

    def __init__(self, function: Function) -> None:
        self.function = function


def vjp(body: Function, primals: tuple[Any, ...], has_aux: bool = False) -> tuple[Any, ...]:
    """Call ``torch.func.vjp`` of a body; the function in the result is a :class:`Pullback`.

    Example:
        >>> import torch
        >>> from layergraph.control_flow.transforms import pullback, vjp
        >>> value, of_vjp = vjp(torch.square, (torch.tensor(3.0),))
        >>> pullback(of_vjp, torch.tensor(1.0))
        (tensor(6.),)
    """
    value, function, *aux = torch.func.vjp(body, *primals, has_aux=has_aux)
    return value, Pullback(function), *aux


def pullback(function: Pullback, *cotangents: Any, **kwargs: Any) -> Any:
    """Call the function of :func:`vjp`.

    Raises:
        TypeError: it is no result of :func:`vjp`.
    """
    if not isinstance(function, Pullback):
        raise TypeError(f"{function!r} is no function of torch.func.vjp; give the result of vjp")
    return function.function(*cotangents, **kwargs)


# The homes of torch's higher-order functions, by node name.
_HIGHER_ORDER = {
    "torch.cond": "torch._higher_order_ops.cond.cond",
    "torch.while_loop": "torch._higher_order_ops.while_loop.while_loop",
    "torch._higher_order_ops.associative_scan": (
        "torch._higher_order_ops.associative_scan.associative_scan"
    ),
    "torch._higher_order_ops.map": "torch._higher_order_ops.map.map",
    "torch._higher_order_ops.scan": "torch._higher_order_ops.scan.scan",
    "torch._higher_order_ops.switch": "torch._higher_order_ops.switch.switch",
    **{name: name for name in AUTOGRAD_FUNCTIONS},
}


def higher_order() -> Iterator[tuple[str, Function]]:
    """Yield the higher-order functions, each with its node name; older releases have fewer."""
    for name, place in _HIGHER_ORDER.items():
        home, _, last = place.rpartition(".")
        try:
            yield name, getattr(import_module(home), last)
        except (ImportError, AttributeError):
            continue
