"""Passes on low-rank adapters (LoRA) of PEFT, which adds them beside a base layer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from layergraph.ir import FUNCTION, STATE, Node, Ref, Symbol
from layergraph_rewrite import Call, Site, bound_layers

if TYPE_CHECKING:
    import torch

    from layergraph_rewrite import Edit
    from layergraph_rewrite.sources import Tensors
    from layergraph_rewrite.working import WorkingGraph, WorkingLayer

# The second layer of an adapter, lora_B, by the name that PEFT gives to it.
_UP = re.compile(r"(?:(?P<owner>.*)\.)?lora_B\.(?P<adapter>[^.]+)")
_PRODUCTS = frozenset({"torch.Tensor.mul", "operator.mul", "torch.mul"})
_SUMS = frozenset({"torch.Tensor.add", "operator.add", "torch.add"})
_GUARDS = frozenset({"torch.Tensor.dtype", "layergraph.assume"})
# Children by which we recognize a layer of PEFT: the layer that it adapts, and the copy that it
# trains instead of a layer. Each has the reason why the pass leaves such a layer in place.
_BASE = {
    "base_layer": "it is not a low-rank adapter of linear layers; merge or unload it with PEFT"
}
_TRAINED = {"modules_to_save": "it is a trained copy of another layer, and stays"}
_DROPOUTS = frozenset({"dropout", "identity"})


class _NoAdapterError(Exception):
    """The calls around a layer are not those of an adapter. The message is the reason."""


@dataclass(frozen=True, slots=True)
class _Adapter:
    """The nodes of an adapter: ``before + up(down(dropout(cast(x)))) * scale``.

    Attributes:
        down: the call of the first layer, ``lora_A``.
        up: the call of the second layer, ``lora_B``.
        dropout: the call of the dropout before them; None without dropout.
        casts: the nodes that cast the input to the dtype of the adapter, users first.
        product: the node that multiplies by the scale.
        scale: the scale.
        total: the node that adds the adapter to ``before``.
        before: the other summand.
        base: the call of the layer beside the adapter.
        guards: the nodes that only check the dtype of the adapter, users first.
    """

    down: Call
    up: Call
    dropout: Call | None
    casts: tuple[Call, ...]
    product: Call
    scale: float
    total: Call
    before: Call
    base: Call
    guards: tuple[Call, ...]


def merge_adapters(edit: Edit) -> None:
    """Add low-rank adapters to the weights of the layers beside them.

    The pass computes the weights as PEFT does, in the dtype of the layer:
    ``weight + (up @ down) * scale``. The new model rounds differently from the old
    one. The pass removes layers that no node calls, such as adapters that are not active.

    The pass leaves an adapter in place, with the reason in the report, if its dropout is in
    training mode, if its layers are not linear, have a bias or a quantized base, or if other nodes
    use them. It also leaves adapters of other kinds.
    """
    _report_unused(edit)
    bound = bound_layers(edit)
    for up, found in _adapters(edit):
        reason = found if isinstance(found, str) else _problem(edit, found, bound)
        if reason or isinstance(found, str):
            edit.report.refuse(up, reason)
            continue
        layer = found.base.layer or ""
        if edit.has_state:
            weight = partial(
                _merged, found.base.tensors, found.up.tensors, found.down.tensors, found.scale
            )
            edit.set(layer, tensors={"weight": weight})
        edit.report.add(up, f"merged into {layer!r}")
        _remove(edit, found)
    _refuse_others(edit, _BASE)
    edit.drop_unused_layers()


def drop_adapters(edit: Edit) -> None:
    """Remove low-rank adapters, so that the base layers compute as before the adaptation.

    The pass removes layers that no node calls, such as adapters that are not active. It leaves an
    adapter in place, with the reason in the report, if the calls around it are not those that PEFT
    makes. It also leaves adapters of other kinds, and trained copies of layers
    (``modules_to_save``).
    """
    _report_unused(edit)
    for up, found in _adapters(edit):
        if isinstance(found, str):
            edit.report.refuse(up, found)
            continue
        edit.report.add(up, f"dropped beside {found.base.layer!r}")
        _remove(edit, found)
    _refuse_others(edit, _BASE | _TRAINED)
    edit.drop_unused_layers()


def _report_unused(edit: Edit) -> None:
    """Report the adapters that no node calls, because the pass removes their layers."""
    for name in edit.layers:
        found = _UP.fullmatch(name)
        if found and not edit.calls(name):
            text = "nothing calls it: it is not active, or the weights hold it (merged by PEFT)"
            edit.report.add(Site(found["owner"] or "", f"lora_B.{found['adapter']}"), text)


def _refuse_others(edit: Edit, children: Mapping[str, str]) -> None:
    """Report the layers of PEFT that still compute with tensors other than those of their base.

    Args:
        edit: the edit.
        children: the names of children that identify such a layer, each with the reason.
    """
    told = {each.site.graph for each in edit.report.refused}
    for layer in list(edit.layers.values()):
        for child, reason in children.items():
            base = (layer.children or {}).get(child)
            if base is not None and layer.name not in told:
                found = [each for graph in layer.graphs for each in _others(graph, base)]
                if found:
                    edit.report.refuse(found[0], reason)


def _others(graph: WorkingGraph, base: WorkingLayer) -> Iterator[Call]:
    """Yield the nodes that use tensors of other layers than the base layer."""
    for node in graph:
        if node.type == STATE:
            users = [graph.nodes[each] for each in graph.users[node.name]]
            is_other = any(each.implementation not in _GUARDS for each in users)
        else:
            is_other = node.is_call and graph.layer_of(node) is not base
            is_other = is_other and Call(graph, node.name).has_tensors
        if is_other:
            yield Call(graph, node.name)


def _merged(
    base: Tensors,
    up: Tensors,
    down: Tensors,
    scale: float,
) -> torch.Tensor:
    weight = base["weight"]
    merged: torch.Tensor = weight + (up["weight"] @ down["weight"]) * scale
    return merged.detach().to(weight.dtype)


def _remove(edit: Edit, adapter: _Adapter) -> None:
    edit.remove(adapter.total, by=adapter.before)
    for each in (*adapter.guards, adapter.product, adapter.up, adapter.down):
        edit.remove(each)
    for each in (*([] if adapter.dropout is None else [adapter.dropout]), *adapter.casts):
        if not each.users:
            edit.remove(each)


def _adapters(edit: Edit) -> Iterator[tuple[Call, _Adapter | str]]:
    """Yield the call of each ``lora_B``, with its adapter, or with the reason why it has none."""
    for up in list(edit):
        if up.layer is not None and _UP.fullmatch(up.layer):
            try:
                yield up, _adapter(edit, up)
            except _NoAdapterError as error:
                yield up, str(error)


def _adapter(edit: Edit, up: Call) -> _Adapter:
    name = up.layer or ""
    down = _source(up)
    if down.layer != re.sub(r"lora_B(?=\.[^.]+$)", "lora_A", name):
        raise _NoAdapterError(f"it reads {down.site.node!r}, not the first layer of the adapter")
    source = _source(down)
    dropout = source if source.type in _DROPOUTS else None
    given = [source if dropout is None else _source(dropout)]
    while _is_cast(given[-1]):
        given.append(_source(given[-1]))
    product = _only_user(up)
    scale = product.args[1] if len(product.args) == 2 else None
    if product.function not in _PRODUCTS or not isinstance(scale, int | float):
        raise _NoAdapterError("its value is not multiplied by a number")
    total = _only_user(product)
    operands = list(total.args)
    if total.function not in _SUMS or total.kwargs or len(operands) != 2:
        raise _NoAdapterError("its value is not added to that of a layer")
    other = operands[0] if operands[1] == Ref(product.site.node) else operands[1]
    if type(other) is not Ref:
        raise _NoAdapterError("its value is not added to that of a layer")
    before = base = Call(total.spot[0], other.node)
    while base.function in _SUMS:
        base = _source(base)
    if base.layer is None or base.layer.rpartition(".")[2] != "base_layer":
        raise _NoAdapterError(
            f"its value is added to that of {base.site.node!r}, which is not a base layer"
        )
    if _source(base) not in given:
        raise _NoAdapterError(f"it reads another value than {base.layer!r}")
    if any(len(edit.calls(each.layer or "")) > 1 for each in (up, down, base)):
        raise _NoAdapterError("several nodes call it, or the layer beside it")
    guards = tuple(_guards(edit, down)) + tuple(_guards(edit, up))
    return _Adapter(
        down,
        up,
        dropout,
        tuple(given[:-1]),
        product,
        float(scale),
        total,
        before,
        base,
        guards,
    )


def _node(call: Call) -> Node:
    graph, name = call.spot
    nodes = [each.nodes[name] for each in graph.owner.graphs_with(name)]
    if any(repr(each) != repr(nodes[0]) for each in nodes):
        raise _NoAdapterError(f"{name!r} differs in the two modes")
    return nodes[0]


def _is_cast(call: Call) -> bool:
    """Return whether a node only casts its first argument to another dtype."""
    settings = [*call.args[1:], *call.kwargs.values()]
    is_alone = len(settings) == 1 and isinstance(settings[0], Symbol)
    return call.function == "torch.Tensor.to" and is_alone and call.kwargs.keys() <= {"dtype"}


def _source(call: Call) -> Call:
    """Return the node whose value is the first argument."""
    args = _node(call).args or ()
    if not args or type(args[0]) is not Ref:
        raise _NoAdapterError(
            f"the first argument of {call.site.node!r} is not the value of a node"
        )
    return Call(call.spot[0], args[0].node)


def _only_user(call: Call) -> Call:
    graph, name = call.spot
    users = {user for each in graph.owner.graphs_with(name) for user in each.users[name]}
    if len(users) != 1:
        raise _NoAdapterError(f"{len(users)} nodes read the value of {name!r}")
    user = Call(graph, users.pop())
    _node(user)
    return user


def _guards(edit: Edit, call: Call) -> Iterator[Call]:
    """Yield the nodes that check the dtype of the tensors of a layer, users first."""
    graph, _ = call.spot
    for node in list(graph):
        if node.type == STATE and edit.home(node.implementation)[0].name == call.layer:
            yield from _checking(Call(graph, node.name))


def _checking(call: Call) -> Iterator[Call]:
    for user in call.users:
        if user.node.type != FUNCTION or user.function not in _GUARDS:
            raise _NoAdapterError(f"{user.site.node!r} reads a tensor of it")
        yield from _checking(user)
    yield call


def _problem(edit: Edit, adapter: _Adapter, bound: dict[str, str]) -> str:
    """Return the reason why an adapter cannot be merged; an empty text if it can."""
    dropout = adapter.dropout
    if dropout is not None and dropout.training and dropout.attributes.get("p", 0) != 0:
        return "its dropout is in training mode; capture the model in eval mode"
    for call in (adapter.up, adapter.down, adapter.base):
        layer = call.layer or ""
        if call.type != "linear":
            return f"{layer!r} is of type {call.type!r}; only linear layers are merged"
        if call is not adapter.base and call.attributes.get("bias", True):
            return f"{layer!r} has a bias"
    layer = adapter.base.layer or ""
    if layer in bound:
        return f"the tensors of {layer!r} are used elsewhere: {bound[layer]}"
    spec = edit.layers[layer].tensors.get("weight")
    if spec is not None and spec.packed is not None:
        return f"the weight of {layer!r} is a {spec.packed.kind}; merge before quantizing"
    return ""
