"""The IR of a workspace: its layers after the edits."""

from __future__ import annotations

import operator
from collections.abc import Mapping

from layergraph.gc_pause import gc_paused
from layergraph.ir import BODY, MODULE, STATE, Graph, Implementation, Ir, Node, check
from layergraph_rewrite.child_order import in_order_of_calls, joined, names_of, ordered
from layergraph_rewrite.parts import tied
from layergraph_rewrite.working import WorkingLayer, changed
from layergraph_rewrite.workspace import Workspace

_position = operator.attrgetter("position")


@gc_paused()
def finished_ir(space: Workspace) -> Ir:
    """Return a checked IR of the current layers, which shares nothing with the workspace.

    Raises:
        InvalidIrError: the IR breaks a rule.
    """
    first: dict[int, str] = {}
    for path, layer in space.paths():
        first.setdefault(id(layer), path)
    known = [layer for layer in space.layers.values() if id(layer) in first]
    for body in space.bodies_of(known):
        first[id(body)] = body.name
    ties = _ties(space, first)
    ir = Ir(
        [
            _implementation(space, layer, first, ties)
            for layer in sorted(space.layers.values(), key=_position)
            if id(layer) in first
        ],
        space.root.name,
    ).copy()
    # A composite whose graph is no longer a chain gets another type, and so do its calls.
    for each in ir.values():
        for graph in each.graphs:
            for node in graph.nodes.values():
                if node.is_call:
                    node.type = ir[node.implementation].type
    check(ir)
    return ir


def _ties(space: Workspace, first: Mapping[int, str]) -> dict[tuple[int, str], str | None]:
    """Return the current tie of each tied tensor: the key of the first remaining tensor."""
    ties: dict[tuple[int, str], str | None] = {}
    anchors: dict[str, str] = {}
    for layer in sorted(space.tied_layers(), key=_position):
        for name, spec in layer.tensors.items():
            if spec.tied is None or id(layer) not in first:
                continue
            home, tensor = space.home(spec.tied)
            if id(home) in first:
                ties[id(layer), name] = joined(first[id(home)], tensor)
            elif spec.tied in anchors:
                ties[id(layer), name] = anchors[spec.tied]
            else:
                ties[id(layer), name] = None
                anchors[spec.tied] = joined(first[id(layer)], name)
    return ties


def _implementation(
    space: Workspace,
    layer: WorkingLayer,
    first: Mapping[int, str],
    ties: Mapping[tuple[int, str], str | None],
) -> Implementation:
    def named(node: Node) -> Node:
        if node.type != STATE:
            return node
        home, tensor = space.home(node.implementation)
        return changed(node, implementation=joined(first[id(home)], tensor))

    graphs = [graph.finished(named) for graph in layer.graphs]
    kind, data = layer.type, layer.data
    children = None if layer.children is None else names_of(layer.in_order())
    if layer.is_edited and kind not in (MODULE, BODY) and graphs:
        children, is_chain = in_order_of_calls(graphs, children or {})
        if not is_chain:
            kind, data = MODULE, {name: each for name, each in data.items() if "." in name}
    tensors = {
        name: tied(spec, ties.get((id(layer), name))) for name, spec in layer.tensors.items()
    }
    main = graphs[0] if graphs else Graph()
    return Implementation(
        type=kind,
        data=data,
        name=layer.name,
        nodes=main.nodes,
        edges=main.edges,
        evaluation=graphs[1] if len(graphs) > 1 else None,
        children=children,
        tensors=tensors,
        training=layer.training,
        kept_modes=_kept_modes(layer),
    )


def _kept_modes(layer: WorkingLayer) -> dict[str, bool | None]:
    """Return the modes that a layer fixes, by paths from the layer."""
    if not layer.kept_modes:
        return {}
    found: dict[str, bool | None] = {}
    stack: list[tuple[str, WorkingLayer]] = [("", layer)]
    while stack:
        path, each = stack.pop()
        if each in layer.kept_modes:
            found[path] = layer.kept_modes[each]
        stack += [(joined(path, child), each.inner[child]) for child in reversed(ordered(each))]
    return found
