"""Passes from functions to layers, and from layers to functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layergraph.ir import Ref, Value
from layergraph_passes.modes import first_argument, is_the_mode, nodes_of
from layergraph_passes.table import BY_FUNCTION, MODE, NoLayerError, attributes_of, call_of
from layergraph_rewrite import Call, Edit, function, layer

if TYPE_CHECKING:
    from layergraph_rewrite.working import WorkingGraph


def functional_to_layers(edit: Edit) -> None:
    """Replace functions by layers: ``F.relu(x)`` becomes a layer of the type ``relu``.

    It knows activations, softmax, pooling, dropout that follows the mode, flatten, pixel shuffle
    and interpolation: see ``layergraph_passes.table``. The new model computes the same, to the bit.

    A call stays, with the reason in the report, if no layer computes the same.
    """
    for call in list(edit):
        if call.function not in BY_FUNCTION:
            continue
        try:
            kind, attributes = _layer_of(call)
        except NoLayerError as error:
            edit.report.refuse(call, str(error))
            continue
        source = first_argument(call.node)
        modes = [node.kwargs.get(MODE) for node in nodes_of(call)]
        name = call.function
        made = edit.replace(call, layer(kind, **attributes)(source))
        edit.report.add(made, f"{name} became the layer {made.layer!r}")
        _drop_modes(edit, made, modes)


def _layer_of(call: Call) -> tuple[str, dict[str, Value]]:
    found = [attributes_of(node) for node in nodes_of(call)]
    kind, attributes, _ = found[0]
    if any(repr(each[:2]) != repr((kind, attributes)) for each in found):
        raise NoLayerError("the graphs for training and evaluation differ here")
    if len({repr(first_argument(node)) for node in nodes_of(call)}) > 1:
        raise NoLayerError("the graphs for training and evaluation differ in its input")
    here, name = call.spot
    for graph, (_, _, mode) in zip(
        [each for each in here.owner.graphs if name in each], found, strict=True
    ):
        if mode is not None and not _follows(graph, mode):
            raise NoLayerError("it does not follow the mode of the model")
    return kind, attributes


def _follows(graph: WorkingGraph, mode: Value) -> bool:
    """Return whether an argument is the mode of the model, in one of its graphs."""
    graphs = graph.owner.graphs
    if type(mode) is Ref:
        return is_the_mode(graph.nodes[mode.node])
    return len(graphs) > 1 and mode is (graph is graphs[0])


def _drop_modes(edit: Edit, call: Call, modes: list[Value]) -> None:
    """Remove the nodes that read the mode, if no node reads them any more."""
    for mode in modes:
        if type(mode) is Ref:
            owner = call.spot[0].owner
            graphs = owner.graphs_with(mode.node)
            if graphs and not any(graph.users[mode.node] for graph in graphs):
                edit.remove(Call(graphs[0], mode.node))


def layers_to_functional(edit: Edit) -> None:
    """Replace layers without tensors by functions: a layer ``relu`` becomes ``F.relu(x)``.

    The new model computes the same, to the bit. Dropout stays, because it follows the mode.
    """
    for call in list(edit):
        if call.layer is None or call.spot[0].layer_of(call.node).graphs:
            continue
        found = call_of(call.type, call.attributes)
        if found is None:
            continue
        if len(call.args) != 1 or call.kwargs:
            edit.report.refuse(call, "it is called with more than its input")
            continue
        name, given = found
        notes = {key: value for key, value in call.data.items() if "." in key}
        path = call.layer
        made = edit.replace(call, function(name)(*call.args, **given))
        if notes:
            edit.annotate(made, notes)
        edit.report.add(made, f"the layer {path!r} became {name}")
