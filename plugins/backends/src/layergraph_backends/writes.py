"""In-place changes: the names in a graph that need a new value after one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from layergraph.ir import INPUT, STATE, Node, Ref
from layergraph.ir.values import leaves
from layergraph_backends.views import Meta, Views
from layergraph_rewrite.aliases import aliases, written
from layergraph_rewrite.binding import bound
from layergraph_rewrite.working import WorkingGraph, WorkingLayer

_STALE = (
    "it changes {!r} in place, and {!r}, which may share its memory, is read later; let the model "
    "compute a new tensor"
)


class Change(NamedTuple):
    """The names that have another value after an in-place change.

    Attributes:
        up: the changed node and the wholes that contain its value, inner ones first.
        again: the earlier nodes whose values are parts of those, in order.
        problem: the reason why these may be incomplete; empty if complete.
    """

    up: list[str]
    again: list[str]
    problem: str = ""


class Writes:
    """The in-place changes of one graph, for a target with immutable values.

    Args:
        graph: the graph.
        layers: all layers by name.
        meta: returns the description of the value of a node.
        kept: the inputs that the caller of the graph reads after the call.
    """

    def __init__(
        self,
        graph: WorkingGraph,
        layers: Mapping[str, WorkingLayer],
        meta: Meta,
        kept: Collection[str] = (),
    ) -> None:
        self._kept = kept
        self._graph = graph
        self._layers = layers
        self.views = Views(graph, layers, meta)
        self._position = {node.name: number for number, node in enumerate(graph)}

    def of(self, node: Node) -> list[str]:
        """Return the nodes whose values a function or leaf changes in place."""
        return written(node, self._layers)

    def node(self, name: str) -> Node:
        """Return a node of the graph."""
        return self._graph.nodes[name]

    def change(self, node: Node, changed: str) -> Change:
        """Return the names that an in-place change rebinds.

        Args:
            node: the node that makes the change.
            changed: the node whose value it changes.
        """
        here = self._position[node.name]
        root = self.views.root(changed)
        before = [each.name for each in self._graph if self._position[each.name] < here]
        parts = [name for name in before if self.views.root(name) == root]
        lines = {name: self._line(name) for name in parts}
        wanted = [name for name in parts if self._is_read(name, node)]
        up = lines[changed]
        # Go up to the last whole that a later read shares.
        last = max((_meeting(up, lines[name]) for name in wanted), default=0)
        chain = up[: last + 1]
        needed = {each for name in wanted for each in lines[name]} - {*up}
        again = [name for name in parts if name in needed]
        return Change(chain, again, self._problem(node, changed, parts))

    def _line(self, name: str) -> list[str]:
        """Return a node and the wholes that contain its value, inner ones first."""
        line = [name]
        while (view := self.views.of(line[-1])) is not None:
            line.append(view.parent)
        return line

    def _problem(self, node: Node, changed: str, parts: list[str]) -> str:
        copies = {each.name for each in self._graph if self.views.is_copy(each)}
        near = aliases(self._graph, [changed], self._layers, behind=copies)
        state = [name for name in near if self._graph.nodes[name].type == STATE]
        if state:
            key = self._graph.nodes[min(state)].implementation
            return f"it changes the tensor {key!r} of the model in place"
        here = self._position[node.name]
        stale = [
            name
            for name in near.difference(parts)
            if self._position[name] < here and self._is_read(name, node)
        ]
        return _STALE.format(changed, min(stale)) if stale else ""

    def is_read_after(self, value: object, node: Node) -> bool:
        """Return whether a later node, or the caller, reads a node in a value, or an alias."""
        names = [leaf.node for leaf in leaves(value) if type(leaf) is Ref]
        near = aliases(self._graph, names, self._layers)
        return any(self._is_read(each, node) for each in near)

    def _is_read(self, name: str, node: Node) -> bool:
        here = self._position[node.name]
        is_read = any(self._position[user] > here for user in self._graph.users[name])
        return is_read or name in self._kept


def _meeting(up: list[str], line: list[str]) -> int:
    return next(at for at, name in enumerate(up) if name in line)


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
    """Return the nodes whose values a node changes, including through a composite."""
    if not node.is_call or not layers[node.implementation].graphs:
        return written(node, layers)
    inside = changed_inputs(node.implementation, layers, known)
    if not inside:
        return ()
    inputs = [each for each in layers[node.implementation].graphs[0] if each.type == INPUT]
    given = bound(inputs, node.args or (), node.kwargs)
    arguments = [given[each] for each in inside]
    return [leaf.node for leaf in leaves(*arguments) if type(leaf) is Ref]
