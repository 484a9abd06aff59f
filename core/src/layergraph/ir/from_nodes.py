"""Graphs of nodes that state their arguments."""

from __future__ import annotations

from collections.abc import Iterable

from layergraph.ir.edges import Edge
from layergraph.ir.graph import OUTPUT, Graph, Node
from layergraph.ir.values import Ref, Value


def graph_from_nodes(nodes: Iterable[Node]) -> Graph:
    """Return a graph of nodes, with the edges that their arguments name.

    Args:
        nodes: in execution order, each with its arguments stated. The graph has copies of them.

    Example:
        >>> from layergraph.ir import Node, Ref, graph_from_nodes
        >>> double = Node("double", "function", "torch.add", (Ref("x"), Ref("x")))
        >>> output = Node("output", "output", "output", (Ref("double"),))
        >>> list(graph_from_nodes([Node("x", "input", "x"), double, output]).edges)
        [('x', 'double'), ('double', 'output')]
    """
    return graph_of_new(map(unbound_copy, nodes))


def unbound_copy(node: Node) -> Node:
    """Return a copy of a node that states its type, and has the same arguments."""
    return Node(
        node.name, node.type, node.implementation, node.args, node.kwargs, node.data, node.when
    )


def graph_of_new(nodes: Iterable[Node]) -> Graph:
    """Return :func:`graph_from_nodes` of nodes that nothing else has: the graph takes them."""
    named: dict[str, Node] = {}
    edges: dict[tuple[str, str], Edge] = {}
    for node in nodes:
        name = node.name
        args = node.args = node.args or ()
        for src in node.sources():
            edges[src, name] = Edge(src, name)
        if node.type == OUTPUT and len(args) == 1 and type(args[0]) is tuple and len(args[0]) > 1:
            node.args = args[0] if reads_each_once(args[0]) else args
        named[name] = node
    return Graph(nodes=named, edges=edges)


_REFS = frozenset({Ref})


def reads_each_once(args: tuple[Value, ...]) -> bool:
    """Return whether all arguments are references, each to a different node."""
    return _REFS.issuperset(map(type, args)) and len({arg.node for arg in args}) == len(args)
