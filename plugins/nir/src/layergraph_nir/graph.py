"""A graph of NIR while a model is written: nodes, edges, and the wires between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import nir  # type: ignore[import-untyped]
import numpy as np
import torch

from layergraph.errors import LayergraphError

Shape = tuple[int, ...]


class UnsayableError(LayergraphError):
    """NIR cannot say a step of a model. A handler raises it with the reason."""


@dataclass(frozen=True, eq=False)
class Wire:
    """A value of a model: the sum of what some nodes of one graph of NIR give.

    Attributes:
        graph: the graph.
        names: the nodes, each once.
        shape: the shape of the value, without the batch.
    """

    graph: GraphBuilder
    names: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True, eq=False)
class NeuronState:
    """The state of a neuron, which NIR keeps in the neuron itself."""


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A parameter or buffer that a graph reads."""

    key: str
    tensor: torch.Tensor


class GraphBuilder:
    """A graph of NIR that grows.

    Args:
        path: the path of the module that it describes.
    """

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.states: set[str] = set()
        self._feedback: dict[str, tuple[str, ...] | None] = {}

    def name(self, wish: str) -> str:
        """Return an unused name like the wanted one."""
        if "/" in wish:
            raise UnsayableError(f"its name {wish!r} has a '/', which separates groups in HDF5")
        name, number = wish, 0
        while name in self.nodes:
            number += 1
            name = f"{wish}_{number}"
        return name

    def add(self, wish: str, node: Any, sources: Iterable[Wire], shape: Shape) -> Wire:
        """Add a node that reads the sum of some wires.

        Args:
            wish: its name, unless it is taken.
            node: the node of NIR.
            sources: the wires. No two name one node.
            shape: the shape of what it gives.
        """
        name = self.name(wish)
        self.nodes[name] = node
        for wire in sources:
            node.input_type = {"input": np.array(wire.shape)}
            self.edges += [(each, name) for each in wire.names]
        node.output_type = {"output": np.array(shape)}
        return Wire(self, (name,), shape)

    def add_input(self, wish: str, shape: Shape) -> Wire:
        """Add an input."""
        return self.add(wish, nir.Input(input_type=np.array(shape)), (), shape)

    def add_output(self, wish: str, wire: Wire) -> Wire:
        """Add an output, which gives a wire."""
        return self.add(wish, nir.Output(output_type=np.array(wire.shape)), [wire], wire.shape)

    def added(self, one: Wire, other: Wire) -> Wire:
        """Return the sum of two wires."""
        twice = [name for name in other.names if name in one.names]
        if twice:
            # Two nodes have at most one edge between them.
            scale = nir.Scale(scale=np.ones(one.shape, np.float32))
            other = self.add("again", scale, [other], one.shape)
        return Wire(self, (*one.names, *other.names), one.shape)

    def feedback(self, path: str, shape: Shape) -> Wire:
        """Return the wire of a value of the step before, whose source comes later."""
        name = f"feedback {path}"
        self._feedback[name] = None
        return Wire(self, (name,), shape)

    def close_feedback(self, path: str, wire: Wire) -> None:
        """State the source of a value of the step before."""
        self._feedback[f"feedback {path}"] = wire.names

    def take_state(self, wire: Wire) -> None:
        """Note that an input is the state of a neuron, which NIR keeps inside.

        Raises:
            UnsayableError: the wire is no input.
        """
        (name, *more) = wire.names
        if more or not isinstance(self.nodes.get(name), nir.Input):
            raise UnsayableError(
                "the model computes its state, and a neuron of NIR keeps it; hand the state in "
                "from the caller, or let the neuron keep it with init_hidden=True"
            )
        self.states.add(name)

    def used_inputs(self) -> list[str]:
        """Return the inputs that a node reads."""
        read = {src for src, _ in self.edges}
        return [
            name
            for name, node in self.nodes.items()
            if isinstance(node, nir.Input) and name in read
        ]

    def finished(self, metadata: dict[str, Any] | None = None) -> Any:
        """Return the graph of NIR.

        Raises:
            UnsayableError: an input is both a state and a signal.
        """
        both = self.states.intersection(self.used_inputs())
        if both:
            raise UnsayableError(f"the input {min(both)!r} is the state of a neuron and a signal")
        nodes = {name: node for name, node in self.nodes.items() if name not in self.states}
        graph = nir.NIRGraph(nodes, list(self.all_edges()), metadata or {}, type_check=False)
        # Where a graph has one input, its type has the key that other nodes have.
        for field, key in (("input_type", "input"), ("output_type", "output")):
            types = getattr(graph, field)
            if types and len(types) == 1:
                setattr(graph, field, {key: next(iter(types.values()))})
        return graph

    def all_edges(self) -> Iterator[tuple[str, str]]:
        """Yield the edges, with the sources of values of the step before."""
        for src, dst in self.edges:
            for each in self._feedback.get(src) or (() if src in self._feedback else (src,)):
                yield each, dst

    def splice(self, inner: GraphBuilder, prefix: str, inputs: dict[str, Wire]) -> dict[str, str]:
        """Put the nodes of another graph into this one.

        Args:
            inner: the other graph.
            prefix: what to put before the names of its nodes.
            inputs: the wires that stand for its inputs.

        Returns:
            The new names of its nodes.
        """
        renamed: dict[str, str] = {}
        for name, node in inner.nodes.items():
            if name not in inputs:
                renamed[name] = self.name(f"{prefix}.{name}")
                self.nodes[renamed[name]] = node
        for src, dst in inner.all_edges():
            sources = inputs[src].names if src in inputs else (renamed[src],)
            self.edges += [(each, renamed[dst]) for each in sources]
        return renamed
