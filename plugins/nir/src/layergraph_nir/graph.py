"""The builder of a graph of NIR, and the values that handlers receive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import nir  # type: ignore[import-untyped]
import numpy as np
import torch

from layergraph.errors import LayergraphError

Shape = tuple[int, ...]


class UnsupportedError(LayergraphError):
    """NIR does not support a step of a model. A handler raises this error with the reason."""


@dataclass(frozen=True, eq=False)
class Signal:
    """A value that depends on an input of the model: the sum of the outputs of some nodes.

    Attributes:
        graph: the graph of the nodes.
        names: the names of the nodes, without duplicates.
        shape: the shape of the value, without the batch.
    """

    graph: GraphBuilder
    names: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True, eq=False)
class NeuronState:
    """The new state that a neuron of a model returns; NIR keeps it in the node."""


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A parameter or buffer that a graph reads."""

    key: str
    tensor: torch.Tensor


class GraphBuilder:
    """Builds a graph of NIR.

    Args:
        path: the path of the module that the graph describes.
    """

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.states: set[str] = set()
        self._feedback: dict[str, tuple[str, ...] | None] = {}

    def name(self, wish: str) -> str:
        """Return the wanted name, with a number if a node has it already."""
        if "/" in wish:
            raise UnsupportedError(f"its name {wish!r} has a '/', which separates groups in HDF5")
        name, number = wish, 0
        while name in self.nodes:
            number += 1
            name = f"{wish}_{number}"
        return name

    def add(self, wish: str, node: Any, sources: Iterable[Signal], shape: Shape) -> Signal:
        """Add a node that reads the sum of some signals, and return its output.

        Args:
            wish: the wanted name.
            node: the node of NIR.
            sources: the signals, which share no node.
            shape: the shape of its output, without the batch.
        """
        name = self.name(wish)
        self.nodes[name] = node
        for signal in sources:
            node.input_type = {"input": np.array(signal.shape)}
            self.edges += [(each, name) for each in signal.names]
        node.output_type = {"output": np.array(shape)}
        return Signal(self, (name,), shape)

    def add_input(self, wish: str, shape: Shape) -> Signal:
        """Add an input."""
        return self.add(wish, nir.Input(input_type=np.array(shape)), (), shape)

    def add_output(self, wish: str, signal: Signal) -> Signal:
        """Add an output that reads a signal."""
        return self.add(
            wish, nir.Output(output_type=np.array(signal.shape)), [signal], signal.shape
        )

    def added(self, one: Signal, other: Signal) -> Signal:
        """Return the sum of two signals."""
        twice = [name for name in other.names if name in one.names]
        if twice:
            # NIR allows one edge between two nodes, so a Scale by 1 carries the second value.
            scale = nir.Scale(scale=np.ones(one.shape, np.float32))
            other = self.add("again", scale, [other], one.shape)
        return Signal(self, (*one.names, *other.names), one.shape)

    def feedback(self, path: str, shape: Shape) -> Signal:
        """Return the value of the previous time step, whose source ``close_feedback`` sets."""
        name = f"feedback {path}"
        self._feedback[name] = None
        return Signal(self, (name,), shape)

    def close_feedback(self, path: str, signal: Signal) -> None:
        """Set the source of a value of the previous time step."""
        self._feedback[f"feedback {path}"] = signal.names

    def take_state(self, signal: Signal) -> None:
        """Record that an input is the state of a neuron, which the node of NIR keeps itself.

        Raises:
            UnsupportedError: the signal is not an input.
        """
        (name, *more) = signal.names
        if more or not isinstance(self.nodes.get(name), nir.Input):
            raise UnsupportedError(
                "the model computes its state, but a neuron of NIR keeps its state itself; pass "
                "the state from the caller, or let the neuron keep it with init_hidden=True"
            )
        self.states.add(name)

    def used_inputs(self) -> list[str]:
        """Return the inputs that some node reads."""
        read = {src for src, _ in self.edges}
        return [
            name
            for name, node in self.nodes.items()
            if isinstance(node, nir.Input) and name in read
        ]

    def finished(self, metadata: dict[str, Any] | None = None) -> Any:
        """Return the graph of NIR.

        Raises:
            UnsupportedError: an input is the state of a neuron, and another node reads it.
        """
        both = self.states.intersection(self.used_inputs())
        if both:
            raise UnsupportedError(
                f"the input {min(both)!r} is the state of a neuron, and another node reads it"
            )
        nodes = {name: node for name, node in self.nodes.items() if name not in self.states}
        graph = nir.NIRGraph(nodes, list(self.all_edges()), metadata or {}, type_check=False)
        # If a graph has one input, nir expects its type under the key `input`, as in other nodes.
        for field, key in (("input_type", "input"), ("output_type", "output")):
            types = getattr(graph, field)
            if types and len(types) == 1:
                setattr(graph, field, {key: next(iter(types.values()))})
        return graph

    def all_edges(self) -> Iterator[tuple[str, str]]:
        """Yield the edges, with feedback placeholders replaced by their sources."""
        for src, dst in self.edges:
            for each in self._feedback.get(src) or (() if src in self._feedback else (src,)):
                yield each, dst

    def splice(self, inner: GraphBuilder, prefix: str, inputs: dict[str, Signal]) -> dict[str, str]:
        """Inline another graph into this one.

        Args:
            inner: the other graph.
            prefix: the prefix for the names of its nodes.
            inputs: the signals that replace its inputs.

        Returns:
            The new names of its nodes, by old name.
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
