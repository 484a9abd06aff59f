"""Effects of nodes: nodes with effects may not be reordered freely."""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from typing import Any

import torch

from layergraph.ir import FUNCTION, Node
from layergraph.ir.function_name import FunctionName
from layergraph_rewrite.working import Layers, WorkingLayer


class Effect(enum.Flag):
    """An effect of a node besides its value.

    WRITES: it changes a tensor in place, or sets one of the model. UPDATES: it changes tensors of
    its own layer, which no node reads. DRAWS: it draws random numbers. CHECKS: it raises an error
    if a value is not as expected. REGION: it begins or ends a region, such as ``no_grad``, or takes
    gradients, which depend on how its arguments were computed.
    """

    NONE = 0
    WRITES = enum.auto()
    UPDATES = enum.auto()
    DRAWS = enum.auto()
    CHECKS = enum.auto()
    REGION = enum.auto()


def effect_of(node: Node, layers: Mapping[str, WorkingLayer]) -> Effect:
    """Return the effects of a node.

    Args:
        node: the node.
        layers: all layers by name.
    """
    if is_unlisted(node):
        return Effect.WRITES | Effect.DRAWS
    if node.bodies():
        # The body that the function runs may have any of these effects.
        return Effect.WRITES | Effect.DRAWS | Effect.CHECKS
    if node.type == FUNCTION:
        effect = _of_function(node.implementation)
        if node.kwargs and (node.kwargs.get("out") is not None or node.kwargs.get("inplace")):
            effect |= Effect.WRITES
        if node.implementation.endswith("_norm") and any(map(node.kwargs.get, _UPDATING)):
            effect |= Effect.WRITES
        if node.implementation.startswith("torch.nn.functional.") and _has_flag(node):
            # An in-place flag or a training flag may be given by position.
            effect |= _flags(node.implementation, node.args or ())
        return effect
    if node.sets_state:
        return Effect.WRITES
    return _of_layer(layers[node.implementation], layers) if node.is_call else Effect.NONE


def is_unlisted(node: Node) -> bool:
    """Return whether a node calls a function that no plugin lists: it may do anything."""
    return type(node.implementation) is FunctionName


def _of_layer(layer: WorkingLayer, layers: Mapping[str, WorkingLayer]) -> Effect:
    if not layer.children and not layer.graphs:
        return _of_leaf(layer, layers)
    effect = Effect.NONE
    for each in layer.inside():
        if not each.graphs:
            effect |= _of_leaf(each, layers)
        for graph in each.graphs:
            for node in graph:
                if node.type == FUNCTION or node.sets_state:
                    effect |= effect_of(node, layers)
    return effect & ~Effect.REGION  # each region of a graph ends in it


def _of_leaf(layer: WorkingLayer, layers: Mapping[str, WorkingLayer]) -> Effect:
    data = layer.data
    effect = Effect.WRITES if data.get("inplace") else Effect.NONE
    rate = data.get("p", data.get("dropout", 0))
    if layer.type in _DRAWING or ("dropout" in layer.type) or (type(rate) is float and rate > 0):
        effect |= Effect.DRAWS
    if data.get("track_running_stats") or data.get("momentum") is not None:
        effect |= Effect.UPDATES  # batch norm updates its statistics in training mode
    if any(not spec.persistent for spec in layer.tensors.values()):
        effect |= Effect.UPDATES  # a buffer that no state dict holds may be hidden state
    if effect & Effect.UPDATES and isinstance(layers, Layers) and layers.is_read(layer):
        effect |= Effect.WRITES
    return effect


_DRAWING = frozenset({"rrelu", "fractionalmaxpool2d", "fractionalmaxpool3d"})


@functools.cache
def _of_function(name: str) -> Effect:
    if name.startswith(("layergraph.", _GRAD)):
        if ".assume" in name:
            return Effect.CHECKS
        return Effect.NONE if name in _CHOICES else Effect.REGION
    last = name.rpartition(".")[2]
    if name.startswith("operator."):
        return Effect.WRITES if last in _WRITING_OPERATORS else Effect.NONE
    if name.startswith("torch.ops."):
        last = name.split(".")[3]
    effect = Effect.CHECKS if last in ("_assert", "_assert_async") else Effect.NONE
    operation = getattr(torch.ops.aten, last, None)
    schemas: list[Any] = []
    if operation is not None and hasattr(operation, "overloads"):
        overloads = [getattr(operation, each) for each in operation.overloads()]
        schemas = [each._schema for each in overloads]
        if any(torch.Tag.nondeterministic_seeded in each.tags for each in overloads):
            effect |= Effect.DRAWS
    is_dunder = last.startswith("__") and last.endswith("__")
    if is_dunder:
        return effect | (Effect.WRITES if last in _WRITING_DUNDERS else Effect.NONE)
    writes = bool(schemas) and all(each.is_mutable for each in schemas)
    if last.endswith("_") or writes:
        effect |= Effect.WRITES
    if "dropout" in last or last in _DRAWING_FUNCTIONS:
        effect |= Effect.DRAWS
    return effect


_GRAD = "torch.autograd.grad"
_CHOICES = frozenset({"layergraph.truth", "layergraph.holds", "layergraph.choose"})
_WRITING_OPERATORS = frozenset(
    "delitem iadd iand ifloordiv ilshift imatmul imod imul ior ipow irshift isub itruediv ixor "
    "setitem".split()
)
_WRITING_DUNDERS = frozenset(
    f"__{name}__" for name in {*_WRITING_OPERATORS, "idiv"} if name not in ("",)
)
# Flags with which batch norm and instance norm update their statistics.
_UPDATING = ("training", "use_input_stats")
_DRAWING_FUNCTIONS = frozenset(
    "gumbel_softmax rrelu multi_head_attention_forward scaled_dot_product_attention "
    "fractional_max_pool2d fractional_max_pool3d".split()
)


def _has_flag(node: Node) -> bool:
    return any(each is True for each in node.args or ())  # 1, as of a stride, is no flag


def _flags(name: str, args: tuple[Any, ...]) -> Effect:
    """Return the effects that flags given by position switch on."""
    import inspect

    function = getattr(torch.nn.functional, name.rpartition(".")[2], None)
    try:
        parameters = list(inspect.signature(function).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return Effect.WRITES
    on = {each for each, value in zip(parameters, args, strict=False) if value is True}
    return Effect.WRITES if on & {"inplace", *_UPDATING} else Effect.NONE


def may_pass(one: Effect, other: Effect) -> bool:
    """Return whether two nodes that do not read each other may be swapped.

    A write may change a tensor that the other node reads. Two draws would swap their random
    numbers. A region changes how other nodes compute.
    """
    both = one & other
    if (one | other) & (Effect.WRITES | Effect.REGION):
        return not (one | other) & ~Effect.CHECKS
    return not both & (Effect.DRAWS | Effect.UPDATES)
