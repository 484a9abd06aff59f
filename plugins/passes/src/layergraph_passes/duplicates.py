"""Passes that merge equal computations and equal layers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from layergraph.ir import BODY, FUNCTION, OUTPUT, STATE
from layergraph_rewrite import Call, EditError, bound_layers
from layergraph_rewrite.effects import Effect, effect_of
from layergraph_rewrite.likeness import Likeness

if TYPE_CHECKING:
    import torch

    from layergraph.ir import Node
    from layergraph_rewrite import Edit
    from layergraph_rewrite.working import WorkingGraph, WorkingLayer


def common_subexpressions(edit: Edit) -> None:
    """Merge nodes of a graph that compute the same value.

    Such nodes call the same function or layer with the same arguments. They stay separate if they
    have effects, if a node after the first of them changes a tensor in place or begins or ends a
    region, if both are results of the graph, or if the graph differs between the modes.
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


def deduplicate(edit: Edit, *, types: str | Sequence[str] = "*") -> None:
    """Share equal layers and blocks: of one type, with equal attributes, graphs and bits.

    A block is shared as a whole, with the layers inside it. The keys stay, and become ties. A layer
    or block stays alone if it, or a layer inside it, is in training mode, has tensors that are
    tied, keeps a mode of its own, or may have state that no state dict holds. The same holds for
    layers whose tensors other nodes read, blocks that change their tensors, and layers without
    tensors. The pass reads the tensors of all candidates.

    Args:
        edit: the edit.
        types: the types to share; ``*`` stands for any characters. Several as a list, or as one
            text with commas: ``"module, sequential"`` are the blocks.
    """
    if not edit.has_state:
        return
    wanted = [each.strip() for each in types.split(",")] if isinstance(types, str) else types
    equal = Likeness(edit.home, strict=True)
    candidates = [
        layer
        for layer in _sharable(edit)
        if layer.calls and any(fnmatchcase(layer.type, each) for each in wanted)
    ]
    counts = Counter(map(equal, candidates))
    digests: dict[WorkingLayer, str] = {}
    alike: dict[tuple[str, str], list[WorkingLayer]] = {}
    for layer in candidates:
        if counts[equal(layer)] > 1:
            key = equal(layer), _digest_of(edit, layer, digests)
            alike.setdefault(key, []).append(layer)
    # Large blocks first, because sharing a block shares the layers inside it.
    for one, *others in sorted(alike.values(), key=lambda each: -len(list(each[0].inside()))):
        for other in others:
            if edit.layers.get(other.name) is other:
                call = edit.calls(other.name)[0]
                try:
                    edit.share(other.name, one.name)
                except EditError as error:
                    edit.report.refuse(call, str(error))
                else:
                    edit.report.add(call, f"shares the layer {one.name!r}")


def _sharable(edit: Edit) -> list[WorkingLayer]:
    """Return the layers and blocks that may be shared if they have an equal, parents first.

    A block may be shared if all layers inside it may be.
    """
    (root,) = (each for each in edit.layers.values() if not each.parents and each.type != BODY)
    bound = bound_layers(edit)
    tied = _tied(edit)
    keeping = {inner for each in edit.layers.values() for inner in each.kept_modes}
    modes: dict[WorkingLayer, bool] = {}
    for layer in root.inside():
        above = (modes[parent] for parent, _ in layer.parents if parent in modes)
        modes[layer] = next(above, True) if layer.training is None else layer.training
    alone = keeping | tied | {layer for layer in modes if modes[layer] or _may_change(edit, layer)}
    with_tensors: set[WorkingLayer] = set()
    for layer in root.innermost_first():
        inner = (layer.children or {}).values()
        if not alone.isdisjoint(inner):
            alone.add(layer)
        if layer.sources or not with_tensors.isdisjoint(inner):
            with_tensors.add(layer)
    return [
        layer
        for layer in root.inside()
        if layer in with_tensors - alone
        and layer is not root
        and (layer.children is not None or layer.name not in bound)
    ]


def _tied(edit: Edit) -> set[WorkingLayer]:
    ties = [
        (layer, edit.home(spec.tied)[0])
        for layer in edit.layers.values()
        for spec in layer.tensors.values()
        if spec.tied is not None
    ]
    return {layer for pair in ties for layer in pair}


def _may_change(edit: Edit, layer: WorkingLayer) -> bool:
    """Return whether a layer itself may have state of its own, beyond its tensors."""
    if any(spec.persistent is False and spec.value is None for spec in layer.tensors.values()):
        return True
    if layer.children is None:
        return any(spec.persistent is False for spec in layer.tensors.values())
    nodes = [node for graph in layer.graphs for node in graph]
    return any(node.type == STATE for node in nodes) and any(
        effect_of(node, edit.layers) & Effect.WRITES for node in nodes
    )


def _digest_of(edit: Edit, layer: WorkingLayer, known: dict[WorkingLayer, str]) -> str:
    """Return a text that is equal for equal layers with bit-equal tensors."""
    for each in layer.innermost_first():
        if each not in known:
            tensors = edit.tensors(each.name)
            own = [(name, _digest(tensors[name])) for name in sorted(tensors)]
            inner = [(name, known[child]) for name, child in sorted((each.children or {}).items())]
            known[each] = hashlib.sha256(repr((own, inner)).encode()).hexdigest()
    return known[layer]


def _digest(tensor: torch.Tensor) -> str:
    from layergraph.api import default_ir2torch

    # Equal layers have equal packings, so comparing the parts is enough.
    blocks = default_ir2torch().hooks.tensor_kinds.blocks(tensor)
    return "".join(map(_digest_of_numbers, blocks))


def _digest_of_numbers(tensor: torch.Tensor) -> str:
    import torch

    plain = tensor.detach().cpu().contiguous()
    raw = plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return f"{plain.dtype}{tuple(plain.shape)}{hashlib.sha256(raw).hexdigest()}"
