"""Facts about layers that an IR does not state: sizes of parameters, and costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import layergraph as lg
from layergraph.errors import LayergraphError, first_line
from layergraph.ir import Ir

Tensors: TypeAlias = Callable[[], Sequence[Any]]
"""A function that returns the tensors of a model: see
:meth:`layergraph.ir2torch.converter.Ir2Torch.tensors`."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The known facts of the layers, by name of the layer.

    Attributes:
        parameters: the number of elements of a layer's own parameters, each tensor once.
        flops: a layer's own FLOPs in all its calls.
        notes: sentences about unknown facts, with the reason.
    """

    parameters: Mapping[str, int]
    flops: Mapping[str, int]
    notes: tuple[str, ...] = ()


def with_facts(
    ir: Ir,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    sizes: Mapping[str, int] | None = None,
    tensors: Tensors | None = None,
) -> tuple[Ir, Facts]:
    """Return an IR with shapes on its edges if there are inputs, and the facts about its layers.

    Args:
        ir: a checked IR.
        args: the positional arguments of a call, as for :func:`layergraph.shapes`.
        kwargs: the arguments by name.
        sizes: the number for each named size.
        tensors: a function that returns the tensors of the model, or raises a LayergraphError;
            None: the model is built on the meta device, without limits.

    Raises:
        LayergraphError: there are inputs, and the shapes cannot be computed from them.
    """
    if args is None and kwargs is None:
        return ir, _without_inputs(ir, tensors)
    annotated = lg.annotate_shapes(ir, args or (), kwargs)
    try:
        cost = lg.cost(ir, args or (), kwargs, sizes=sizes)
    except LayergraphError as error:
        known = _without_inputs(ir, tensors)
        note = f"The cost is unknown: {first_line(error)}"
        return annotated, Facts(known.parameters, {}, (*known.notes, note))
    notes = tuple(f"The FLOPs are unknown of {each}" for each in cost.uncounted)
    parameters = {each.name: each.parameters for each in cost.layers}
    return annotated, Facts(parameters, {each.name: each.flops for each in cost.layers}, notes)


def _without_inputs(ir: Ir, tensors: Tensors | None) -> Facts:
    from torch import nn

    from layergraph.api import default_ir2torch
    from layergraph.ir2torch.submodules import owner_of

    try:
        listed = default_ir2torch().tensors(ir) if tensors is None else tensors()
    except LayergraphError as error:
        return Facts({}, {}, (f"The parameters are unknown: {first_line(error)}",))
    parameters = dict.fromkeys(ir, 0)
    seen: set[int] = set()
    for key, tensor, _ in listed:
        if id(tensor) not in seen and isinstance(tensor, nn.Parameter):
            seen.add(id(tensor))
            parameters[owner_of(ir, key)[0]] += tensor.numel()
    return Facts(parameters, {})
