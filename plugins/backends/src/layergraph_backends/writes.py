"""Changes in place: the names in a graph that have a new value after one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from layergraph.ir import INPUT, STATE, Node, Ref
from layergraph.ir.values import leaves
from layergraph_rewrite.aliases import aliases, written
from layergraph_rewrite.binding import bound
from layergraph_rewrite.working import WorkingGraph, WorkingLayer


class Writes:
    """The changes in place in one graph, for a target whose values never change.

    Args:
        graph: the graph.
        layers: all layers by name.
    """

    def __init__(self, graph: WorkingGraph, layers: Mapping[str, WorkingLayer]) -> None:
        self._graph = graph
        self._layers = layers
        self._same: dict[str, str] = {}
        self._position = {node.name: number for number, node in enumerate(graph)}

    def of(self, node: Node) -> list[str]:
        """Return the nodes whose values a function or leaf changes in place."""
        return written(node, self._layers)

    def renewed(self, node: Node, changed: str) -> tuple[list[str], str]:
        """Return the names that stand for the changed tensor, and why that is not enough.

        Args:
            node: the node that makes the change.
            changed: the node whose value it changes.

        Returns:
            The nodes whose value is the changed tensor. Then the reason for which the target cannot
            follow the change; empty if there is none.
        """
        same = self._same.get(changed, changed)
        self._same[node.name] = same
        near = aliases(self._graph, [changed], self._layers)
        twins = [name for name in near if self._same.get(name, name) == same]
        state = [name for name in near if self._graph.nodes[name].type == STATE]
        if state:
            key = self._graph.nodes[min(state)].implementation
            return twins, f"it changes the tensor {key!r} of the model in place"
        here = self._position[node.name]
        before = [name for name in near if self._position[name] < here and name not in twins]
        stale = [name for name in before if self._is_read(name, node)]
        if stale:
            return twins, (
                f"it changes {changed!r} in place, and {min(stale)!r}, which may share its memory, "
                "is read later; let the model compute a new tensor"
            )
        return twins, ""

    def is_read_after(self, value: object, node: Node) -> bool:
        """Return whether a later node reads one of the nodes that a value names, or an alias."""
        names = [leaf.node for leaf in leaves(value) if type(leaf) is Ref]
        near = aliases(self._graph, names, self._layers)
        return any(self._is_read(each, node) for each in near)

    def _is_read(self, name: str, node: Node) -> bool:
        here = self._position[node.name]
        return any(self._position[user] > here for user in self._graph.users[name])


def changed_inputs(
    name: str, layers: Mapping[str, WorkingLayer], known: dict[str, frozenset[str]]
) -> frozenset[str]:
    """Return the inputs of a composite whose tensors its graph changes in place.

    Args:
        name: the name of the composite.
        layers: all layers by name.
        known: the results for other composites, which this extends.

    Returns:
        Names of input nodes.
    """
    if name not in known:
        known[name] = frozenset()
        graph = layers[name].graphs[0]
        changed = [each for node in graph for each in _changed(node, layers, known)]
        near = aliases(graph, changed, layers)
        known[name] = frozenset(each for each in near if graph.nodes[each].type == INPUT)
    return known[name]


def _changed(
    node: Node, layers: Mapping[str, WorkingLayer], known: dict[str, frozenset[str]]
) -> Iterable[str]:
    """Return the nodes whose values a node changes, also one that calls a composite."""
    if not node.is_call or not layers[node.implementation].graphs:
        return written(node, layers)
    inside = changed_inputs(node.implementation, layers, known)
    if not inside:
        return ()
    inputs = [each for each in layers[node.implementation].graphs[0] if each.type == INPUT]
    given = bound(inputs, node.args or (), node.kwargs)
    arguments = [given[each] for each in inside]
    return [leaf.node for leaf in leaves(*arguments) if type(leaf) is Ref]
