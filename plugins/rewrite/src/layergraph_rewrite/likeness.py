"""Comparison of layers and composites by type, attributes and graphs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from layergraph.ir import STATE, Node
from layergraph_rewrite.working import WorkingGraph, WorkingLayer

Home = Callable[[str], tuple[WorkingLayer, str]]


class Likeness:
    """Texts of layers that are equal for equal layers. Values of tensors do not count.

    Args:
        home: returns the layer and the tensor name of a key.
        strict: whether annotations and tensor specs count too.
    """

    def __init__(self, home: Home, *, strict: bool = False) -> None:
        self._home = home
        self._is_strict = strict
        self._known: dict[WorkingLayer, str] = {}

    def __call__(self, layer: WorkingLayer) -> str:
        """Return the text of a layer."""
        for each in layer.innermost_first():
            if each not in self._known:
                text = repr((self._of(each), self._of_children(each)))
                self._known[each] = hashlib.sha256(text.encode()).hexdigest()
        return self._known[layer]

    def _of(self, layer: WorkingLayer) -> tuple[object, ...]:
        data = layer.data if self._is_strict else layer.attributes
        graphs = [[self._of_node(graph, node) for node in graph] for graph in layer.graphs]
        return (
            layer.type,
            sorted(data.items()),
            layer.children is None,
            graphs,
            self._of_specs(layer),
        )

    def _of_specs(self, layer: WorkingLayer) -> object:
        if self._is_strict:  # the bytes of a constant count: said() has them, its text has not
            said = {name: spec.said() for name, spec in layer.tensors.items()}
            return sorted(
                (name, sorted({**each, "tied": None}.items())) for name, each in said.items()
            )
        return None if layer.children is None else sorted(layer.tensors)

    def _of_children(self, layer: WorkingLayer) -> list[tuple[str, str]]:
        return [(name, self._known[child]) for name, child in layer.in_order().items()]

    def _of_node(self, graph: WorkingGraph, node: Node) -> tuple[object, ...]:
        target: object = node.implementation
        if node.is_call:
            target = _path(graph.owner, graph.layer_of(node))
        elif node.type == STATE:
            home, tensor = self._home(node.implementation)
            target = (_path(graph.owner, home), tensor)
        annotations: object = None
        if self._is_strict:
            annotations = node.data, [graph.edge_data(each, node.name) for each in node.sources()]
        kwargs = sorted(node.kwargs.items())
        return node.name, node.type, target, node.args, kwargs, node.when, annotations


def _path(owner: WorkingLayer, layer: WorkingLayer) -> object:
    """Return the path from a composite to a layer inside; for a layer outside, a unique key."""
    pending: list[tuple[WorkingLayer, tuple[str, ...]]] = [(layer, ())]
    seen: set[WorkingLayer] = set()
    while pending:
        each, path = pending.pop()
        if each is owner:
            return path
        if each not in seen:
            seen.add(each)
            parents = sorted(each.parents, key=lambda pair: pair[1])
            pending += [(parent, (child, *path)) for parent, child in parents]
    return id(layer)


def counterparts(one: WorkingLayer, other: WorkingLayer) -> dict[WorkingLayer, WorkingLayer]:
    """Return the corresponding layer of the second composite for each layer inside the first.

    Raises:
        ValueError: a shared layer of one composite corresponds to two layers of the other.
    """
    found: dict[WorkingLayer, WorkingLayer] = {}
    for mine, theirs in _pairs(one, other):
        if found.setdefault(mine, theirs) is not theirs:
            raise ValueError(theirs.name)
    return found


def _pairs(one: WorkingLayer, other: WorkingLayer) -> Iterator[tuple[WorkingLayer, WorkingLayer]]:
    stack, seen = [(one, other)], {(one, other)}
    while stack:
        mine, theirs = stack.pop()
        yield mine, theirs
        for name, child in (mine.children or {}).items():
            pair = child, theirs.inner[name]
            if pair not in seen:
                seen.add(pair)
                stack.append(pair)
