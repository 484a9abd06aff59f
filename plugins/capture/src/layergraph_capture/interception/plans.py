"""The plans of nodes for torch's higher-order functions: the bodies, and their samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._functorch import vmap
from torch.utils import _pytree as pytree

from layergraph.control_flow.transforms import AUTOGRAD_FUNCTIONS
from layergraph.errors import CaptureError

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """A function argument, and the sample arguments to record it on.

    Attributes:
        name: the name of the body.
        function: the function.
        args: the sample arguments.
    """

    name: str
    function: Function
    args: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a node for a call.

    Attributes:
        args: the positional arguments of the node, with a sample in place of each body.
        kwargs: the keyword arguments of the node.
        run: the arguments for this call, if they differ from the model's; else None.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    run: tuple[tuple[Any, ...], dict[str, Any]] | None = None


def _first(values: Any, dim: int = 0, index: int = 0) -> Any:
    """Return nested values with one slice of each tensor."""
    for tensor in pytree.tree_leaves(values):
        if not isinstance(tensor, torch.Tensor) or tensor.shape[dim] == 0:
            raise CaptureError(
                "a function of torch that runs over no slices, or over inputs other than tensors; "
                "capture it with at least one slice"
            )
    return pytree.tree_map(lambda each: each.select(dim, index), values)


def _cond(pred: Any, true_fn: Function, false_fn: Function, operands: Any = ()) -> Plan:
    branches = (Sample("true", true_fn, operands), Sample("false", false_fn, operands))
    flat, spec = pytree.tree_flatten(operands)
    run = pred, _flat(true_fn, spec), _flat(false_fn, spec), tuple(flat)
    return Plan((pred, *branches, operands), run=(run, {}))


def _switch(index: Any, branches: Sequence[Function], operands: Any = ()) -> Plan:
    samples = [Sample(f"branch_{n}", each, operands) for n, each in enumerate(branches)]
    flat, spec = pytree.tree_flatten(operands)
    run = index, tuple([_flat(each, spec) for each in branches]), tuple(flat)
    return Plan((index, samples, operands), run=(run, {}))


def _while_loop(cond_fn: Function, body_fn: Function, carried_inputs: Any) -> Plan:
    samples = Sample("cond", cond_fn, carried_inputs), Sample("body", body_fn, carried_inputs)
    return Plan((*samples, carried_inputs))


def _map(f: Function, xs: Any, *args: Any) -> Plan:
    return Plan((Sample("map", f, (_first(xs), *args)), xs, *args))


def _scan(combine_fn: Function, init: Any, xs: Any, **kwargs: Any) -> Plan:
    first = _first(xs, kwargs.get("dim", 0))
    return Plan((Sample("combine", combine_fn, (init, first)), init, xs), kwargs)


def _associative_scan(combine_fn: Function, xs: Any, dim: int, *args: Any, **kwargs: Any) -> Plan:
    first = _first(xs, dim)
    return Plan((Sample("combine", combine_fn, (first, first)), xs, dim, *args), kwargs)


def _vmap(
    func: Function,
    in_dims: Any,
    out_dims: Any,
    randomness: str,
    chunk_size: int | None,
    *args: Any,
    **kwargs: Any,
) -> Plan:
    if kwargs:
        # Torch passes these whole to each call.
        of_args = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
        in_dims = (*of_args, *[None] * len(kwargs))
        func, args = _by_position(func, [*kwargs]), (*args, *kwargs.values())
    size, dims, flat, spec = vmap._process_batched_inputs(in_dims, args, func)
    if not size:
        raise CaptureError("vmap over an empty batch; capture it with at least one item")
    item = [
        each if dim is None else each.select(dim, 0) for each, dim in zip(flat, dims, strict=True)
    ]
    sample = Sample("vmap", func, pytree.tree_unflatten(item, spec))
    return Plan((sample, in_dims, out_dims, randomness, chunk_size, args))


def _grad(
    func: Function, argnums: Any, has_aux: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Plan:
    numbers = counted(argnums, len(args))
    if kwargs:
        func, args = _by_position(func, [*kwargs]), (*args, *kwargs.values())
    return Plan((Sample("grad", func, args), numbers, has_aux, tuple(args)))


def counted(argnums: Any, count: int) -> Any:
    """Return the numbers of arguments, counted from the first: a body may take more of them."""
    return pytree.tree_map(lambda number: number % count if count else number, argnums)


def _vjp(func: Function, *primals: Any, has_aux: bool = False) -> Plan:
    return Plan((Sample("vjp", func, primals), primals, has_aux))


def _of_autograd(func: Function, inputs: Any, *args: Any, **kwargs: Any) -> Plan:
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    return Plan((Sample("function", func, given), inputs, *args), kwargs)


def _jvp(
    func: Function, primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False
) -> Plan:
    return Plan((Sample("jvp", func, primals), primals, tangents, strict, has_aux))


def _flat(function: Function, spec: pytree.TreeSpec) -> Function:
    """Return the function with flattened arguments."""
    return lambda *parts: function(*pytree.tree_unflatten(parts, spec))


def _by_position(function: Function, names: Sequence[str]) -> Function:
    """Return the function with its keyword arguments as last positional ones."""

    def call(*args: Any) -> Any:
        split = len(args) - len(names)
        return function(*args[:split], **dict(zip(names, args[split:], strict=True)))

    return call


_ATTENTION = (
    "runs functions on single numbers of tensors; call "
    "torch.nn.functional.scaled_dot_product_attention with a mask instead"
)
UNHELD = {
    "create_block_mask": _ATTENTION,
    "create_mask": _ATTENTION,
    "flex_attention": _ATTENTION,
    "linearize": "returns a function; call torch.func.jvp instead",
}

# For each transform that returns a function, the options that its node states.
TRANSFORMS = {
    "layergraph.jacfwd": ("argnums", "has_aux", "randomness"),
    "layergraph.jacrev": ("argnums", "has_aux", "chunk_size"),
}
PLANS: dict[str, Callable[..., Plan]] = {
    "layergraph.grad": _grad,
    "layergraph.grad_and_value": _grad,
    "layergraph.jvp": _jvp,
    "layergraph.vjp": _vjp,
    "layergraph.vmap": _vmap,
    **dict.fromkeys(AUTOGRAD_FUNCTIONS, _of_autograd),
    "torch._higher_order_ops.associative_scan": _associative_scan,
    "torch._higher_order_ops.map": _map,
    "torch._higher_order_ops.scan": _scan,
    "torch._higher_order_ops.switch": _switch,
    "torch.cond": _cond,
    "torch.while_loop": _while_loop,
}
