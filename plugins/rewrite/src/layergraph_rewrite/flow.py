"""The flow of values between nodes, also into and out of composites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from layergraph.ir import BODY, INPUT
from layergraph_rewrite.calls import Site

if TYPE_CHECKING:
    from layergraph_rewrite.edit import Edit
    from layergraph_rewrite.working import WorkingGraph

_Point = tuple[Site, bool]
"""A node; for a call of a composite, True for its result and False for its arguments."""


def reaching(edit: Edit, targets: Iterable[Site], *, direct: bool = False) -> set[Site]:
    """Return the nodes whose values reach the targets.

    Args:
        edit: the edit that has the nodes.
        targets: the nodes to reach.
        direct: whether only arguments count.
    """
    return _walked(_edges(edit, is_backward=True), targets, direct=direct, starts_at=False)


def reached(edit: Edit, sources: Iterable[Site], *, direct: bool = False) -> set[Site]:
    """Return the nodes that the values of the sources reach.

    Args:
        edit: the edit that has the nodes.
        sources: the nodes to start from.
        direct: whether only arguments count.
    """
    return _walked(_edges(edit, is_backward=False), sources, direct=direct, starts_at=True)


def _walked(
    edges: Mapping[_Point, list[_Point]], starts: Iterable[Site], *, direct: bool, starts_at: bool
) -> set[Site]:
    first = list(starts)
    stack: list[_Point] = [(site, starts_at) for site in first]
    seen = set(stack)
    found: set[Site] = set()
    while stack:
        point = stack.pop()
        for following in edges.get(point, ()):
            if following in seen:
                continue
            seen.add(following)
            found.add(following[0])
            if not direct or following[0] == point[0]:
                stack.append(following)
    return found - set(first) if direct else found


def _edges(edit: Edit, *, is_backward: bool) -> dict[_Point, list[_Point]]:
    edges: dict[_Point, list[_Point]] = {}

    def connect(src: _Point, sink: _Point) -> None:
        if is_backward:
            src, sink = sink, src
        edges.setdefault(src, []).append(sink)

    for graph in edit.working_graphs():
        owner = graph.owner.name
        for node in graph:
            site = Site(owner, node.name)
            for source in dict.fromkeys(node.sources()):
                connect((Site(owner, source), True), (site, False))
            inner = graph.layer_of(node).graphs if node.is_call else []
            inner = [*inner, *(edit.layers[name].graphs[0] for name in node.bodies())]
            if not inner:
                connect((site, False), (site, True))
            for each in inner:
                inputs, output = _borders(each)
                for item in inputs:
                    connect((site, False), (item, False))
                    if each.owner.type == BODY:
                        # The result of an iteration may be an input of the next one.
                        connect((output, True), (item, False))
                connect((output, True), (site, True))
    return edges


def _borders(graph: WorkingGraph) -> tuple[list[Site], Site]:
    """Return the inputs and the output of a graph."""
    owner = graph.owner.name
    inputs = [Site(owner, node.name) for node in graph if node.type == INPUT]
    return inputs, Site(owner, graph.output().name)
