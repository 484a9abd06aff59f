"""Check a graph of NIR, sort its nodes, and infer their shapes."""

from __future__ import annotations

import re
from typing import Any

import nir  # type: ignore[import-untyped]
import numpy as np

from layergraph.errors import ArgumentError
from layergraph_nir.cycles import delayed_edges, in_order
from layergraph_nir.modules import PRIMITIVES
from layergraph_nir.primitives import Primitive, PrimitiveError, Shape

_STATEFUL = tuple(getattr(nir, each.__name__) for each in PRIMITIVES.values() if each.states_of)


def _keeps_state(node: Any) -> bool:
    """Return True for a neuron, and for a graph, which may contain neurons."""
    return isinstance(node, (*_STATEFUL, nir.NIRGraph))


def _natural(name: str) -> list[Any]:
    """Return a sort key that puts ``output_10`` after ``output_9``; files list nodes by name."""
    parts = re.split(r"([0-9]+)", name)
    return [(len(part.lstrip("0")), part) if part.isdecimal() else part for part in parts]


class CheckedGraph:
    """A checked graph of NIR.

    Args:
        graph: the graph.
        path: the path of its module.
        inputs: its inputs in order; they are sorted by name if this is not a list of all.
        outputs: its outputs in order, with the same rule.

    Raises:
        ArgumentError: the graph breaks a rule of NIR.
    """

    def __init__(self, graph: Any, path: str, inputs: list[str], outputs: list[str]) -> None:
        self.nodes: dict[str, Any] = graph.nodes
        self.path = path
        self.edges = [(str(src), str(dst)) for src, dst in graph.edges]
        self.inputs = self._nodes_of_class(nir.Input, inputs)
        self.outputs = self._nodes_of_class(nir.Output, outputs)
        ends = {*self.inputs, *self.outputs}
        self.inner = [name for name in self.nodes if name not in ends]
        self.inner_names = frozenset(self.inner)
        self._check()
        keeps_state = {name for name in self.inner if _keeps_state(self.nodes[name])}
        order = [*self.inputs, *self.inner, *self.outputs]
        self.delayed = delayed_edges(order, self.edges, keeps_state)
        self.order = in_order(order, [edge for edge in self.edges if edge not in self.delayed])
        self.inner = [name for name in self.order if name not in ends]

    def _nodes_of_class(self, cls: Any, order: list[str]) -> list[str]:
        found = sorted((n for n, node in self.nodes.items() if isinstance(node, cls)), key=_natural)
        stated = [str(name) for name in order]
        return stated if sorted(stated) == sorted(found) else found

    def where(self, name: str) -> str:
        """Return the path and the class of a node, for messages."""
        return f"the node {self.path_of(name)!r} ({type(self.nodes[name]).__name__})"

    def path_of(self, name: str) -> str:
        """Return the path of the layer of a node."""
        return f"{self.path}.{name}" if self.path else name

    def _check(self) -> None:
        if not self.inputs or not self.outputs:
            raise self._error("it has no Input or no Output; add nodes of these types")
        for edge in self.edges:
            for name in edge:
                if name not in self.nodes:
                    raise self._error(f"the edge {edge} names no node {name!r}")
        if len(set(self.edges)) != len(self.edges):
            raise self._error("it has an edge twice; NIR has one edge between two nodes")
        fed = {dst for _, dst in self.edges}
        if fed.intersection(self.inputs) or {src for src, _ in self.edges} & {*self.outputs}:
            raise self._error("it has an edge into an Input, or from an Output")
        for name in self.nodes:
            if name not in fed and name not in self.inputs:
                raise ArgumentError(f"{self.where(name)}: no edge leads to it; add an edge")
        for name in self.inner:
            self._check_name(name)

    def _check_name(self, name: str) -> None:
        parts = name.split(".")
        if not all(part and "/" not in part for part in parts):
            raise self._error(f"{name!r} is not a valid path of a module; rename the node")
        for count in range(1, len(parts)):
            if ".".join(parts[:count]) in self.inner_names:
                raise self._error(
                    f"the name {name!r} is a path inside another node; rename the node"
                )

    def _error(self, reason: str) -> ArgumentError:
        place = f"the graph {self.path!r}" if self.path else "the graph"
        return ArgumentError(f"{place}: {reason}")

    def sources(self) -> dict[str, list[str]]:
        """Return the nodes whose values each node reads, in the order of edges."""
        found: dict[str, list[str]] = {}
        for src, dst in self.edges:
            found.setdefault(dst, []).append(src)
        return found

    def shapes(self, layers: dict[str, Any]) -> dict[str, Shape]:
        """Return the known shapes of the outputs of nodes, without the batch.

        Args:
            layers: the layer of each node, or the shape of the output of a nested graph.

        Raises:
            ArgumentError: a node cannot take the shape of its input.
        """
        found: dict[str, Shape] = {}
        for name in self.inputs:
            stated = self.nodes[name].input_type
            sizes = stated.get("input") if isinstance(stated, dict) else None
            if sizes is not None and np.asarray(sizes).dtype.kind in "iu":
                found[name] = tuple(int(size) for size in np.asarray(sizes).reshape(-1))
        for name, layer in layers.items():
            if not isinstance(layer, Primitive):
                found[name] = layer
            elif layer.takes is not None:
                found[name] = layer.gives(layer.takes)
        waiting, after = list(found), self._successors()
        while waiting:
            src = waiting.pop()
            for dst in after.get(src, ()):
                given = found[src]
                gives = self._output_shape(dst, layers.get(dst), given)
                if dst not in found:
                    found[dst] = gives
                    waiting.append(dst)
        return found

    def _successors(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for src, dst in self.edges:
            found.setdefault(src, []).append(dst)
        return found

    def _output_shape(self, name: str, layer: Any, given: Shape) -> Shape:
        if not isinstance(layer, Primitive):
            return layer if isinstance(layer, tuple) else given
        try:
            return layer.gives(given)
        except PrimitiveError as error:
            raise ArgumentError(f"{self.where(name)}: {error}") from None
