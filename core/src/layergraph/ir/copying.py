"""Deep copies of implementations and graphs."""

from __future__ import annotations

from layergraph.ir.edges import Edge
from layergraph.ir.graph import Graph, Implementation, Node
from layergraph.ir.values import copied


def copied_around(
    each: Implementation, graph: Graph, evaluation: Graph | None = None
) -> Implementation:
    """Return a copy of an implementation with copies of the given graphs instead of its own."""
    main = copied_graph(graph)
    return Implementation(
        type=each.type,
        data=copied(each.data),
        name=each.name,
        nodes=main.nodes,
        edges=main.edges,
        evaluation=None if evaluation is None else copied_graph(evaluation),
        children=None if each.children is None else dict(each.children),
        tensors={name: spec.copy() for name, spec in each.tensors.items()},
        training=each.training,
        kept_modes=dict(each.kept_modes),
    )


def copied_graph(graph: Graph) -> Graph:
    """Return a copy that shares no mutable object with the graph."""
    return Graph(
        nodes={name: _node(node) for name, node in graph.nodes.items()},
        edges={
            pair: Edge(edge.src, edge.sink, copied(edge.data) if edge.data else {})
            for pair, edge in graph.edges.items()
        },
    )


def _node(node: Node) -> Node:
    # Most nodes have no data, and an IR may have thousands.
    args = copied(node.args) if node.args else node.args
    kwargs = copied(node.kwargs) if node.kwargs else {}
    data = copied(node.data) if node.data else {}
    return Node(node.name, node.type, node.implementation, args, kwargs, data, node.when)
