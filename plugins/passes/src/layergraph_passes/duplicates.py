"""Computing and keeping once what is equal."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from layergraph.ir import FUNCTION, OUTPUT
from layergraph_rewrite import Call, bound_layers
from layergraph_rewrite.effects import Effect, effect_of

if TYPE_CHECKING:
    import torch

    from layergraph.ir import Node
    from layergraph_rewrite import Edit
    from layergraph_rewrite.working import WorkingGraph, WorkingLayer


def common_subexpressions(edit: Edit) -> None:
    """Compute once what two nodes of a graph compute alike.

    They call the same function or layer with the same arguments. They stay apart if they do more
    than compute a value, if a node after the first of them changes a tensor in place or begins or
    ends a region, if both are results of the graph, or if the graph differs between the modes.
    """
    for graph in list(edit.working_graphs()):
        if len(graph.owner.graphs) == 1:
            _merge(edit, graph)


def _merge(edit: Edit, graph: WorkingGraph) -> None:
    nodes = list(graph)
    effects = [effect_of(node, edit.layers) for node in nodes]
    bars = [i for i, each in enumerate(effects) if each & (Effect.WRITES | Effect.REGION)]
    start = bars[-1] + 1 if bars else 0
    seen: dict[str, str] = {}
    for name in [node.name for node in nodes[start:]]:
        node = graph.nodes[name]
        if not (node.type == FUNCTION or node.is_call) or effect_of(node, edit.layers):
            continue
        if node.implementation.rpartition(".")[2] in _FRESH or node.data:
            continue
        first = seen.setdefault(_key(node), name)
        if first == name or (_is_result(graph, first) and _is_result(graph, name)):
            continue
        call = Call(graph, name)
        edit.report.add(call, f"computed once, by {first!r}")
        edit.remove(call, by=Call(graph, first))


_FRESH = frozenset({"empty", "empty_like", "new_empty", "empty_strided"})  # their values are chance


def _key(node: Node) -> str:
    # The text of repr: 1 is not True, and 0.0 is not -0.0.
    kwargs = sorted(node.kwargs.items())
    return repr((node.type, node.implementation, node.args, kwargs, node.when))


def _is_result(graph: WorkingGraph, name: str) -> bool:
    return any(graph.nodes[user].type == OUTPUT for user in graph.users[name])


def deduplicate(edit: Edit) -> None:
    """Share layers that are equal: of one type, with equal attributes and bit-equal tensors.

    The keys stay; one tensor stands behind them. A layer in training mode, or whose tensors are
    tied or read elsewhere, stays alone. It reads the tensors of layers that could be equal.
    """
    if not edit.has_state:
        return
    bound = bound_layers(edit)
    alike: dict[str, list[WorkingLayer]] = {}
    for layer in list(edit.layers.values()):
        is_open = layer.children is not None or bool(layer.graphs)
        if is_open or not layer.sources or layer.name in bound or not layer.calls:
            continue
        if not any(call.training for call in edit.calls(layer.name)):
            key = repr((layer.type, sorted(layer.data.items()), sorted(layer.tensors.items())))
            alike.setdefault(key, []).append(layer)
    for layers in alike.values():
        if len(layers) > 1:
            _share(edit, [layer.name for layer in layers])


def _share(edit: Edit, names: list[str]) -> None:
    first: dict[str, str] = {}
    for name in names:
        text = "".join(f"{key}:{_digest(tensor)}" for key, tensor in edit.tensors(name).items())
        one = first.setdefault(text, name)
        if one != name:
            edit.report.add(edit.calls(name)[0], f"shares the layer {one!r}")
            edit.share(name, one)


def _digest(tensor: torch.Tensor) -> str:
    from layergraph.api import default_ir2torch

    # Layers that are alike say the same of how parts make up a tensor.
    blocks = default_ir2torch().hooks.tensor_kinds.blocks(tensor)
    return "".join(map(_digest_of_numbers, blocks))


def _digest_of_numbers(tensor: torch.Tensor) -> str:
    import torch

    plain = tensor.detach().cpu().contiguous()
    raw = plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return f"{plain.dtype}{tuple(plain.shape)}{hashlib.sha256(raw).hexdigest()}"
