"""Cycles of a graph of NIR: find the edges that carry the value of the previous time step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from layergraph.ir import FUNCTION, Edge, Graph, Node

Pair = tuple[str, str]


def delayed_edges(
    nodes: Iterable[str], edges: Sequence[Pair], keeps_state: Collection[str]
) -> set[Pair]:
    """Return the edges that carry the value of the previous time step; the others form no cycle.

    NIR describes continuous time and does not mark these edges. We take the back edges of a
    depth-first search from the inputs. If a back edge leaves a stateless node with one input and
    one output, such as a weight, we take the edge into that node instead, and repeat. So the
    delayed value is the output of a neuron, as in the recurrent neurons of snntorch.

    Args:
        nodes: the nodes, inputs first.
        edges: the edges. The search follows them in this order.
        keeps_state: the nodes that are neurons.

    Example:
        >>> from layergraph_nir.cycles import delayed_edges
        >>> edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
        >>> delayed_edges(["input", "lif", "w_rec", "output"], edges, {"lif"})
        {('lif', 'w_rec')}
    """
    after: dict[str, list[str]] = {}
    before: dict[str, list[str]] = {}
    for src, dst in edges:
        after.setdefault(src, []).append(dst)
        before.setdefault(dst, []).append(src)
    found = set()
    for back in _back_edges(nodes, after):
        edge = back
        while edge[0] not in keeps_state and len(before[edge[0]]) == len(after[edge[0]]) == 1:
            edge = before[edge[0]][0], edge[0]
            if edge == back:
                break
        found.add(edge)
    return found


def _back_edges(nodes: Iterable[str], after: dict[str, list[str]]) -> list[Pair]:
    """Return the back edges of a depth-first search: those to a node on the current path."""
    done: set[str] = set()
    found = []
    for root in nodes:
        if root in done:
            continue
        way = {root}
        stack = [(root, iter(after.get(root, ())))]
        while stack:
            node, following = stack[-1]
            for each in following:
                if each in way:
                    found.append((node, each))
                elif each not in done:
                    way.add(each)
                    stack.append((each, iter(after.get(each, ()))))
                    break
            else:
                stack.pop()
                way.discard(node)
                done.add(node)
    return found


def in_order(nodes: Sequence[str], edges: Iterable[Pair]) -> list[str]:
    """Sort nodes topologically, and keep the given order where the edges allow it.

    Args:
        nodes: the nodes.
        edges: edges that form no cycle.
    """
    graph = Graph(
        nodes={name: Node(name, FUNCTION, name) for name in nodes},
        edges={each: Edge(*each) for each in edges},
    )
    return [node.name for node in graph.in_execution_order()]
