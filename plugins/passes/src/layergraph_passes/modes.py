"""Helpers for nodes of composites with one graph per mode."""

from __future__ import annotations

from layergraph.ir import STATE, Node, Ref, Value
from layergraph_rewrite import Call


def nodes_of(call: Call) -> list[Node]:
    """Return the node in each graph that has it: that for training first, if the modes differ."""
    here, name = call.spot
    return [graph.nodes[name] for graph in here.owner.graphs_with(name)]


def is_only_read_by(call: Call, user: Call) -> bool:
    """Return whether only one node reads a node, in each graph."""
    here, name = call.spot
    return all(set(graph.users[name]) == {user.site.node} for graph in here.owner.graphs_with(name))


def source_of(call: Call) -> Call | None:
    """Return the node whose value is the first argument in each graph; None if there is none."""
    sources = {repr(first_argument(node)): first_argument(node) for node in nodes_of(call)}
    source = next(iter(sources.values()))
    if len(sources) > 1 or type(source) is not Ref:
        return None
    return Call(call.spot[0], source.node)


def is_the_mode(node: Node) -> bool:
    """Return whether a node reads the mode of the model, ``self.training``."""
    return node.type == STATE and node.implementation.rpartition(".")[2] == "training"


def first_argument(node: Node) -> Value:
    """Return the first argument of a node; None without arguments."""
    return node.args[0] if node.args else None
