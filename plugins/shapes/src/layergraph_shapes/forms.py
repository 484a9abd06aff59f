"""Forms: two layers have the same form if they differ only in names."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import NamedTuple

from layergraph.ir.graph import STATE, Graph, Implementation, Node
from layergraph.ir.values import Body, Record, Ref, Value, parts

Path = tuple[str, ...]


class Pair(NamedTuple):
    """Two nodes that have the same place in two composites of one form.

    Attributes:
        path: the names of the nodes that lead to the one, from its composite on.
        node: the one.
        other_path: the names of the nodes that lead to the other.
        other: the other.
    """

    path: Path
    node: Node
    other_path: Path
    other: Node


class Forms:
    """The forms of the implementations of an IR, as numbers.

    Args:
        implementations: the implementations, by name.
    """

    def __init__(self, implementations: Mapping[str, Implementation]) -> None:
        self._implementations = implementations
        self._numbers: dict[Hashable, int] = {}
        self._of: dict[str, int] = {}

    def of(self, name: str) -> int:
        """Return the form of an implementation. Implementations may be nested to any depth."""
        stack = [name]
        while stack:
            top = stack[-1]
            waiting = [each for each in self._inside(top) if each not in self._of]
            if top in self._of or not waiting:
                stack.pop()
                if top not in self._of:
                    self._of[top] = self._number(self._described(self._implementations[top]))
            else:
                stack += waiting
        return self._of[name]

    def pairs(
        self, name: str, other: str, graph_of: Callable[[Implementation], Graph]
    ) -> Iterator[Pair]:
        """Yield the nodes of two composites of one form, those inside a call before the call.

        Args:
            name: the name of the one.
            other: the name of the other.
            graph_of: gives the graph of an implementation.
        """
        stack: list[tuple[Path, Path, Iterator[tuple[Node, Node]], Pair | None]] = []
        stack.append(((), (), self._both(name, other, graph_of), None))
        while stack:
            path, other_path, nodes, call = stack[-1]
            both = next(nodes, None)
            if both is None:
                stack.pop()
                if call is not None:
                    yield call
                continue
            pair = Pair((*path, both[0].name), both[0], (*other_path, both[1].name), both[1])
            if both[0].is_call and self._implementations[both[0].implementation].nodes:
                inside = self._both(both[0].implementation, both[1].implementation, graph_of)
                stack.append((pair.path, pair.other_path, inside, pair))
            else:
                yield pair

    def _both(
        self, name: str, other: str, graph_of: Callable[[Implementation], Graph]
    ) -> Iterator[tuple[Node, Node]]:
        one, two = (graph_of(self._implementations[each]) for each in (name, other))
        return zip(one.in_execution_order(), two.in_execution_order(), strict=True)

    def step(self, node: Node, args: tuple[Value, ...]) -> int:
        """Return a number for the operation of a node, independent of the nodes that it reads.

        The implementations that it calls and runs must have forms: see :meth:`of`.
        """
        return self._number(self._step(node, args, "", {}))

    def _number(self, described: Hashable) -> int:
        return self._numbers.setdefault(described, len(self._numbers))

    def _inside(self, name: str) -> list[str]:
        """Return the implementations that the graphs of one call and run."""
        return [
            each
            for graph in self._implementations[name].graphs
            for node in graph.nodes.values()
            for each in ([node.implementation] if node.is_call else node.bodies())
        ]

    def _described(self, implementation: Implementation) -> Hashable:
        attributes = tuple((key, _frozen(each)) for key, each in implementation.attributes.items())
        tensors = tuple((key, repr(each)) for key, each in implementation.tensors.items())
        graphs = tuple(self._graph(each, implementation.name) for each in implementation.graphs)
        modes = implementation.training, tuple(implementation.kept_modes.items())
        return implementation.type, attributes, tensors, modes, graphs

    def _graph(self, graph: Graph, owner: str) -> Hashable:
        places = {name: place for place, name in enumerate(graph.nodes)}
        arguments = graph.arguments()
        return tuple(
            self._step(node, arguments[node.name], owner, places)
            for node in graph.in_execution_order()
        )

    def _step(
        self, node: Node, args: tuple[Value, ...], owner: str, places: Mapping[str, int]
    ) -> Hashable:
        if node.is_call:
            called: Hashable = self._of[node.implementation]
        elif node.type == STATE:
            own = node.implementation.removeprefix(f"{owner}.")
            called = own, own != node.implementation
        else:
            called = node.implementation
        given = _frozen([args, node.kwargs, node.when], places, self._of)
        return node.type, called, given


def _frozen(
    value: Value, places: Mapping[str, int] | None = None, bodies: Mapping[str, int] | None = None
) -> Hashable:
    """Return a key that is equal for values that differ only in names."""
    kind = type(value)
    if kind is Ref:
        return Ref, (places or {}).get(value.node)
    if kind is Body:
        return Body, (bodies or {}).get(value.implementation)
    inside = parts(value)
    if inside is None:
        return kind, repr(value)
    names = tuple(map(repr, value.fields if kind is Record else value if kind is dict else ()))
    return kind, names, tuple(_frozen(each, places, bodies) for each in inside)
