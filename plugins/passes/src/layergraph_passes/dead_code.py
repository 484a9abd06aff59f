"""Removal of nodes and layers that do not affect a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layergraph.ir import INPUT, OUTPUT
from layergraph_rewrite import Call, Site
from layergraph_rewrite.effects import effect_of

if TYPE_CHECKING:
    from layergraph_rewrite import Edit


def dead_code(edit: Edit, *, keep_layers: bool = False) -> None:
    """Remove nodes whose values nothing reads, and layers that nothing calls, with their keys.

    A node stays if it changes a tensor in place, draws random numbers, checks a value, or begins or
    ends a region. The new model computes the same.

    Args:
        edit: the edit.
        keep_layers: whether layers that nothing calls stay, and so their keys.
    """
    done: set[int] = set()
    for graph in list(edit.working_graphs()):
        owner = graph.owner
        if id(owner) in done:
            continue
        done.add(id(owner))
        waiting = [node.name for each in owner.graphs for node in each]
        while waiting:
            name = waiting.pop()
            graphs = owner.graphs_with(name)
            if not graphs or any(each.users[name] for each in graphs):
                continue
            nodes = [each.nodes[name] for each in graphs]
            if any(node.type in (INPUT, OUTPUT) or effect_of(node, edit.layers) for node in nodes):
                continue
            call = Call(graphs[0], name)
            if call.layer is not None and keep_layers and len(edit.calls(call.layer)) == 1:
                continue
            waiting += [source for node in nodes for source in node.sources()]
            edit.report.add(call, "removed: nothing reads its value")
            edit.remove(call)
    if keep_layers:
        return
    before = list(edit.layers)
    edit.drop_unused_layers()
    root = next(edit.working_graphs()).owner.name
    for name in before:
        if name not in edit.layers:
            edit.report.add(Site(root, name), "removed: nothing calls the layer")
