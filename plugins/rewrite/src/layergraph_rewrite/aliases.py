"""Alias analysis: the values that may share memory, so that an in-place change affects all."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from layergraph.ir import FUNCTION, INPUT, Node, Value, refs
from layergraph_rewrite.binding import bound
from layergraph_rewrite.effects import Effect, effect_of, is_unlisted

if TYPE_CHECKING:
    from layergraph_rewrite.working import WorkingGraph, WorkingLayer

_Layers = Mapping[str, "WorkingLayer"]


def aliases(
    graph: WorkingGraph, names: Iterable[str], layers: _Layers, *, behind: Collection[str] = ()
) -> set[str]:
    """Return some nodes, and all nodes whose values may share memory with theirs.

    Args:
        graph: their graph.
        names: the nodes.
        layers: all layers by name.
        behind: nodes through which no alias counts.
    """
    found = set(names)
    stack = list(found)
    while stack:
        name = stack.pop()
        near = _shared(graph.nodes[name], layers)
        near += [user for user in graph.users[name] if name in _shared(graph.nodes[user], layers)]
        for each in near:
            if each not in found and each not in behind:
                found.add(each)
                stack.append(each)
    return found


def written(node: Node, layers: _Layers) -> list[str]:
    """Return the nodes whose values a node may change in place."""
    if node.sets_state or not effect_of(node, layers) & Effect.WRITES:
        return []
    if is_unlisted(node):
        return node.sources()
    return _first(node) if node.type == FUNCTION or _is_leaf(node, layers) else node.sources()


def _first(node: Node) -> list[str]:
    """Return the argument that a function or leaf changes in place, or returns a view of."""
    first = (node.args or ())[:1] or (*node.kwargs.values(),)
    return refs(*first, node.kwargs.get("out"))


def _shared(node: Node, layers: _Layers) -> list[str]:
    """Return the nodes whose memory the value of a node may share."""
    if node.type == FUNCTION:
        if is_unlisted(node):
            return refs(*_given(node))
        if node.implementation.startswith("layergraph."):
            return _shared_by_ours(node)
        is_shared = shares(node.implementation) or effect_of(node, layers) & Effect.WRITES
        return _first(node) if is_shared else []
    if not node.is_call:
        return []
    layer = layers[node.implementation]
    if not layer.graphs:
        return _first(node) if leaf_shares(layer.type, layer.data) else []
    return [name for graph in layer.graphs for name in refs(*_passed_through(graph, node, layers))]


def _given(node: Node) -> tuple[Value, ...]:
    return (*(node.args or ()), *node.kwargs.values())


def _shared_by_ours(node: Node) -> list[str]:
    """Return the arguments that a function of layergraph may return unchanged."""
    if node.implementation == "layergraph.choose":
        return refs(*_given(node)[1:])
    return [] if effect_of(node, {}) in (Effect.CHECKS, Effect.NONE) else refs(*_given(node))


def _passed_through(graph: WorkingGraph, node: Node, layers: _Layers) -> list[Value]:
    """Return the arguments of a call whose memory the result of the graph may share."""
    near = aliases(graph, graph.output().sources(), layers)
    inputs = [each for each in graph if each.type == INPUT]
    given = bound(inputs, node.args or (), node.kwargs)
    return [given[each.name] for each in inputs if each.name in near]


def _is_leaf(node: Node, layers: _Layers) -> bool:
    return not layers[node.implementation].graphs


def leaf_shares(kind: str, data: Mapping[str, Any]) -> bool:
    """Return whether the value of a leaf may share memory with its argument."""
    return bool(data.get("inplace")) or "dropout" in kind or kind in _SHARING


_SHARING = frozenset({"identity", "flatten", "unflatten"})


@functools.cache
def shares(function: str) -> bool:
    """Return whether the value of a function may share memory with its first argument."""
    place, _, last = function.rpartition(".")
    if function.startswith("torch.ops."):
        last = function.split(".")[3]
    if place == "operator":
        return last == "getitem"
    schemas = list(_schemas(last))
    if not schemas:
        return True  # a function of Python, or of another package
    fresh = [each for each in schemas if not each.is_mutable] or schemas
    return "dropout" in last or any(
        each.alias_info is not None for schema in fresh for each in schema.returns
    )


def _schemas(name: str) -> Iterator[Any]:
    operation = getattr(torch.ops.aten, name, None)
    if operation is not None and hasattr(operation, "overloads"):
        for each in operation.overloads():
            yield getattr(operation, each)._schema
