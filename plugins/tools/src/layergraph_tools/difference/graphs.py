"""Comparing two graphs, apart from the names of nodes.

Names contain counters (``add_1``, ``add_2``), so that a new node renames all later ones. So we
align the nodes of the two graphs by the calls that they make, in execution order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from layergraph.ir import FUNCTION, Graph, Node, Ref, Value, map_leaves
from layergraph.ir.text import node_text
from layergraph_tools.difference.alignment import Pairs, align_by
from layergraph_tools.difference.report import ABSENT, Absent
from layergraph_tools.difference.values import same

Found = tuple[tuple[str, ...], Value | Absent, Value | Absent]
"""A difference: its path, the old value and the new value."""


def compare_mappings(
    where: tuple[str, ...], one: Mapping[str, Value], other: Mapping[str, Value]
) -> Iterator[Found]:
    """Yield the entries that differ between two mappings of plain values."""
    for name in dict.fromkeys([*one, *other]):
        before, after = one.get(name, ABSENT), other.get(name, ABSENT)
        if not same(before, after):
            yield (*where, str(name)), before, after


def compare_order(
    where: tuple[str, ...], one: Sequence[Value], other: Sequence[Value]
) -> Iterator[Found]:
    """Yield the common items of two sequences if their order differs."""
    there, here = set(other), set(one)
    before = [each for each in one if each in there]
    after = [each for each in other if each in here]
    differing = [i for i, pair in enumerate(zip(before, after, strict=True)) if len(set(pair)) > 1]
    if differing:
        span = slice(differing[0], differing[-1] + 1)
        yield where, before[span], after[span]


def compare_graphs(
    one: Graph, other: Graph, is_retyped: Callable[[Node, Node], bool]
) -> Iterator[Found]:
    """Yield the differences between two graphs, apart from the names of nodes.

    Args:
        one: the old graph.
        other: the new graph. Differences use its names of nodes.
        is_retyped: returns whether two nodes have different types only because the type of the
            layer that they call changed. The comparison of the layers reports that.

    Returns:
        The differences: none if and only if the graphs are equal after renaming nodes.
    """
    if _are_alike(one, other, is_retyped):
        return
    found = list(_Comparison(one, other).changes(is_retyped))
    yield from found or _compare_form(one, other)


def _are_alike(one: Graph, other: Graph, is_retyped: Callable[[Node, Node], bool]) -> bool:
    """Return whether the graphs are equal once the n-th nodes of both have the same name."""
    if len(one.nodes) != len(other.nodes) or len(one.edges) != len(other.edges):
        return False
    nodes = zip(one.nodes.values(), other.nodes.values(), strict=True)
    if not all(each.type == there.type or is_retyped(each, there) for each, there in nodes):
        return False
    return all(map(same, _forms(one), _forms(other)))


def _forms(graph: Graph) -> Iterator[tuple[Value, ...]]:
    """Yield the content of nodes and edges without nodes' types, with numbers for their names."""
    numbers = {name: number for number, name in enumerate(graph.nodes)}

    def numbered(leaf: Value) -> Value:
        if type(leaf) is not Ref:
            return leaf
        number = numbers.get(leaf.node)
        return Ref(f"missing {leaf.node}" if number is None else str(number))

    for key, node in graph.nodes.items():
        kwargs = map_leaves(numbered, node.kwargs)
        args, when = map_leaves(numbered, node.args), map_leaves(numbered, node.when)
        yield (node.name == key, node.implementation, args, kwargs, node.data, when)
    for (src, sink), edge in graph.edges.items():
        yield (
            numbers.get(src, src),
            numbers.get(sink, sink),
            (edge.src, edge.sink) == (src, sink),
            edge.data,
        )


def _compare_form(one: Graph, other: Graph) -> Iterator[Found]:
    """Yield the differences in form: explicit edges, their order, and explicit arguments."""
    names = dict(zip(one.nodes, other.nodes, strict=False))
    before = [f"{names.get(src, src)} -> {names.get(sink, sink)}" for src, sink in one.edges]
    after = [f"{src} -> {sink}" for src, sink in other.edges]
    if before != after:
        there, here = set(after), set(before)
        for each in before:
            if each not in there:
                yield ("edges", each), "", ABSENT
        for each in after:
            if each not in here:
                yield ("edges", each), ABSENT, ""
        yield from compare_order(("edges",), before, after)
    else:
        how = [
            [name for name, node in graph.nodes.items() if node.args is not None]
            for graph in (one, other)
        ]
        yield ("stated arguments",), [names.get(name, name) for name in how[0]], how[1]


class _Comparison:
    """Compares two graphs whose nodes it aligns first."""

    def __init__(self, one: Graph, other: Graph) -> None:
        self._graphs = one, other
        self._nodes = list(one.in_execution_order()), list(other.in_execution_order())
        self._pairs = _paired(*self._nodes)
        before, after = self._nodes
        self._names = {before[i].name: after[j].name for i, j in self._pairs}
        self._arguments = one.arguments(), other.arguments()

    def changes(self, is_retyped: Callable[[Node, Node], bool]) -> Iterator[Found]:
        before, after = self._nodes
        partners = dict(self._pairs)
        for index, node in enumerate(before):
            if index not in partners:
                when = self._renamed(node.when)
                renamed = replace(node, kwargs=self._renamed(node.kwargs), when=when)
                args = self._renamed(self._arguments[0][node.name])
                yield ("nodes", node.name), node_text(renamed, args), ABSENT
        kept = {there: index for index, there in self._pairs}
        for index, node in enumerate(after):
            if index not in kept:
                yield ("nodes", node.name), ABSENT, node_text(node, self._arguments[1][node.name])
            else:
                yield from self._pair(before[kept[index]], node, is_retyped)
        yield from self._rest()

    def _pair(
        self, one: Node, other: Node, is_retyped: Callable[[Node, Node], bool]
    ) -> Iterator[Found]:
        where = ("nodes", other.name)
        if one.type != other.type and not is_retyped(one, other):
            yield (*where, "type"), one.type, other.type
        if one.implementation != other.implementation:
            yield (*where, "implementation"), one.implementation, other.implementation
        before = self._renamed(self._arguments[0][one.name])
        after = self._arguments[1][other.name]
        if not same(before, after):
            yield (*where, "args"), list(before), list(after)
        condition = self._renamed(one.when)
        if not same(condition, other.when):
            yield (*where, "when"), _said(condition), _said(other.when)
        yield from compare_mappings((*where, "kwargs"), self._renamed(one.kwargs), other.kwargs)
        yield from compare_mappings((*where, "data"), one.data, other.data)

    def _rest(self) -> Iterator[Found]:
        """Yield differences in the order of nodes and in the data of edges."""
        one, other = self._graphs
        before = [self._names[name] for name in one.nodes if name in self._names]
        yield from compare_order(("nodes",), before, list(other.nodes))
        for (src, sink), edge in one.edges.items():
            pair = self._names.get(src, ""), self._names.get(sink, "")
            there = other.edges.get(pair)
            if there is not None:
                where = ("edges", " -> ".join(pair), "data")
                yield from compare_mappings(where, edge.data, there.data)

    def _renamed(self, value: Value) -> Value:
        """Return a value of the old graph with the new graph's names of nodes."""

        def renamed(leaf: Value) -> Value:
            if type(leaf) is not Ref:
                return leaf
            return Ref(self._names.get(leaf.node, f"removed {leaf.node}"))

        return map_leaves(renamed, value)


def _said(when: Value) -> Value | Absent:
    """Return the condition of a node; ABSENT instead of None."""
    return ABSENT if when is None else when


def _paired(one: Sequence[Node], other: Sequence[Node]) -> Pairs:
    """Align nodes by what they compute; then by position, where a node may have been replaced."""
    return align_by(one, other, [_does], lambda before, after: _kind(before) == _kind(after))


def _does(node: Node) -> tuple[str, str]:
    """Return what a node computes, without the type of the layer that it calls."""
    return "call" if node.is_call else node.type, node.implementation


def _kind(node: Node) -> str:
    return FUNCTION if node.is_call else node.type
