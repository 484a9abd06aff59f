"""Functions of a graph that take bodies: torch's transforms, and ``bound``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch

Function = Callable[..., Any]

NAMES = ("bound", "grad", "grad_and_value", "jvp", "vmap")
"""The functions here that may be nodes."""


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

    Args:
        body: a function of one item of the batch.
        in_dims: see ``torch.vmap``.
        out_dims: see ``torch.vmap``.
        randomness: see ``torch.vmap``.
        chunk_size: see ``torch.vmap``.
        args: the arguments.

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

    Args:
        body: a function that returns a loss.
        argnums: see ``torch.func.grad``.
        has_aux: see ``torch.func.grad``.
        args: the arguments.

    Example:
        >>> import torch
        >>> from layergraph.control_flow.transforms import grad
        >>> grad(torch.sum, 0, False, (torch.ones(2),))
        tensor([1., 1.])
    """
    return torch.func.grad(body, argnums, has_aux)(*args)


def grad_and_value(body: Function, argnums: Any, has_aux: bool, args: tuple[Any, ...]) -> Any:
    """Call ``torch.func.grad_and_value`` of a body: see :func:`grad`.

    Args:
        body: a function that returns a loss.
        argnums: see ``torch.func.grad_and_value``.
        has_aux: see ``torch.func.grad_and_value``.
        args: the arguments.

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

    Args:
        body: a function.
        primals: see ``torch.func.jvp``.
        tangents: see ``torch.func.jvp``.
        strict: see ``torch.func.jvp``.
        has_aux: see ``torch.func.jvp``.

    Example:
        >>> import torch
        >>> from layergraph.control_flow.transforms import jvp
        >>> jvp(torch.square, (torch.tensor(3.0),), (torch.tensor(1.0),))
        (tensor(9.), tensor(6.))
    """
    return torch.func.jvp(body, primals, tangents, strict=strict, has_aux=has_aux)


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
}


def higher_order() -> Iterator[tuple[str, Function]]:
    """Yield the higher-order functions, each with its node name; older releases have fewer."""
    for name, place in _HIGHER_ORDER.items():
        home, _, last = place.rpartition(".")
        try:
            yield name, getattr(import_module(home), last)
        except (ImportError, AttributeError):
            continue
