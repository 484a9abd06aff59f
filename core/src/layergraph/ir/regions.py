"""Checking that the regions of a graph are balanced: each has an end, inside its outer region.

A graph must not leave ``no_grad`` or ``autocast`` switched on or off after it returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard

from layergraph.ir.graph import FUNCTION, Graph, Node
from layergraph.ir.values import Ref

_GRADIENTS = "layergraph.set_grad_enabled"
_ENTER = "layergraph.enter_autocast"
_EXIT = "layergraph.exit_autocast"
_ATTENTION = "layergraph.select_attention"
_REGIONS = frozenset({_GRADIENTS, _ENTER, _EXIT, _ATTENTION})

_Found = tuple[str, str, str]  # the name of a node, the problem, the remedy


def check_regions(graph: Graph) -> Iterator[_Found]:
    """Yield the problems of the nodes that begin and end regions."""
    if _REGIONS.isdisjoint([node.implementation for node in graph.nodes.values()]):
        return
    nodes = {
        node.name: node
        for node in graph.in_execution_order()
        if node.type == FUNCTION and node.implementation in _REGIONS
    }
    if nodes:
        yield from _Walk(graph, nodes).problems()


class _Region:
    """A region that is open.

    Args:
        name: the node that began it.
        kind: the function of that node.
        mode: the first argument of that node.
        is_ended_by_name: True if a later node takes the result of that node, and so ends the
            region. False for a call of ``set_grad_enabled`` that the opposite call ends.
        when: the condition of that node.
    """

    # Not a dataclass, because creating one takes longer than the rest of this module's import.
    def __init__(self, node: Node, mode: object, *, is_ended_by_name: bool) -> None:
        self.name = node.name
        self.kind = node.implementation
        self.mode = mode
        self.is_ended_by_name = is_ended_by_name
        self.when = node.when


class _Walk:
    def __init__(self, graph: Graph, nodes: dict[str, Node]) -> None:
        self._nodes = nodes
        self._arguments = graph.arguments()
        self._open: list[_Region] = []
        self._ended = {given for name in nodes if (given := self._region_of(name)) is not None}

    def problems(self) -> Iterator[_Found]:
        for name, node in self._nodes.items():
            given = self._region_of(name)
            if given is not None:
                yield from self._end(name, given)
            elif node.implementation == _EXIT:
                message = f"{node.implementation!r} ends no region here"
                yield name, message, "give it the result of the node that began the region"
            else:
                yield from self._begin(name, node)
        for region in self._open:
            message = f"the region that {region.kind!r} begins here does not end"
            yield (
                region.name,
                message,
                "add the node that ends it; in the code of a model, use a with statement",
            )

    def _given(self, name: str) -> tuple[object, ...]:
        return (*self._arguments[name], *self._nodes[name].kwargs.values())

    def _region_of(self, name: str) -> str | None:
        """Return the node whose region a node ends; None if the node takes no such result."""
        given = self._given(name)
        if len(given) != 1 or type(given[0]) is not Ref:
            return None
        begins = self._nodes.get(given[0].node)
        own = self._nodes[name].implementation
        fits = begins is not None and begins.implementation == (_ENTER if own == _EXIT else own)
        return given[0].node if fits and own != _ENTER else None

    def _begin(self, name: str, node: Node) -> Iterator[_Found]:
        mode = next(iter(self._given(name)), None)
        is_named = name in self._ended
        last = self._open[-1] if self._open else None
        if _is_a_call(last) and node.implementation == _GRADIENTS and not is_named:
            # Two calls of the function, not blocks: the second call ends the region of the first if
            # it sets another mode, and changes nothing if it sets the same one.
            if last.when != node.when:
                yield _under_another_condition(name, last.name)
            if last.mode != mode:
                self._open.pop()
            return
        self._open.append(_Region(node, mode, is_ended_by_name=is_named))

    def _end(self, name: str, begun: str) -> Iterator[_Found]:
        # The end of a block also ends a function call inside it; there is at most one.
        when = self._nodes[name].when
        last = self._open[-1] if self._open else None
        if _is_a_call(last):
            # A block that always runs ends it in any case.
            if when is not None and last.when != when:
                yield _under_another_condition(name, last.name)
            self._open.pop()
        if self._nodes[begun].when != when:
            yield _under_another_condition(name, begun)
        if self._open and self._open[-1].name == begun:
            self._open.pop()
        elif any(region.name == begun for region in self._open):
            inner = self._open[-1].name
            message = f"it ends a region, but that of {inner!r} inside it is open"
            yield name, message, "end that one first"
            self._open = [region for region in self._open if region.name != begun]
        else:
            yield name, f"the region of {begun!r} is not open here", "end each region once"


def _is_a_call(region: _Region | None) -> TypeGuard[_Region]:
    """Return whether a region is that of a call of ``set_grad_enabled``, not of a block."""
    return region is not None and region.kind == _GRADIENTS and not region.is_ended_by_name


def _under_another_condition(name: str, begun: str) -> _Found:
    message = f"it ends the region of {begun!r} under another condition than that began"
    return name, message, "give both nodes the same condition, or none"
