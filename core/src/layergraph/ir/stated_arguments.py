"""The arguments that the edges of a graph state, in the dict form and in files."""

from __future__ import annotations

from layergraph.ir.graph import Graph, Node, reads_its_predecessor
from layergraph.ir.values import Ref, Value

_REFS = frozenset({Ref})


def with_arguments(graph: Graph) -> Graph:
    """Set the arguments of each node that has none from its edges, and return the graph.

    In the dict form and in files, the order of the edges may state the arguments; in memory, it
    does not.
    """
    unsaid: dict[str, dict[str, None]] = {
        name: {} for name, node in graph.nodes.items() if reads_its_predecessor(node)
    }
    for edge in graph.edges.values():
        if edge.sink in unsaid:
            unsaid[edge.sink][edge.src] = None
    for name, sources in unsaid.items():
        graph.nodes[name].args = tuple(map(Ref, sources))
    return graph


def stated_arguments(node: Node) -> tuple[Value, ...] | None:
    """Return the arguments that the dict form and files state; None if the edges state them.

    Edges state the arguments of a node that takes one value of another node, or none.
    """
    args = node.args
    if args is None or len(args) > 1 or node.kwargs or node.when is not None:
        return args
    return None if _REFS.issuperset(map(type, args)) else args
