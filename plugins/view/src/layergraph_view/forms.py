"""Forms: two layers have the same form if they differ only in names."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from layergraph.ir import STATE, Body, Graph, Implementation, Node, Record, Ref, Value
from layergraph.ir.values import parts


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
        return implementation.type, attributes, tensors, implementation.training, graphs

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
            called = node.implementation.removeprefix(f"{owner}.")
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
