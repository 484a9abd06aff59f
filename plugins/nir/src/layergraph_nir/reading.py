"""``from_nir``: convert a graph of NIR to an IR and a state dict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import nir  # type: ignore[import-untyped]
import numpy as np
import torch

from layergraph.errors import ArgumentError
from layergraph.ir import Implementation, Ir, Node, Ref, check, graph_from_nodes
from layergraph.ir.graph import INPUT, OUTPUT
from layergraph.ir.names import Namer, is_argument_name
from layergraph_nir.checked_graph import CheckedGraph
from layergraph_nir.modules import DT, PRIMITIVES
from layergraph_nir.primitives import Primitive, PrimitiveError, Shape, primitive_of

MOST_LEVELS = 32
"""The maximum depth of nested graphs."""


def from_nir(graph: Any, *, dt: float | None = None) -> tuple[Ir, dict[str, torch.Tensor]]:
    """Convert a graph of NIR to a model that computes one time step.

    Each node becomes a layer with its name, and a nested graph becomes a composite. Neurons keep
    their states between calls; see :mod:`layergraph_nir.modules`. Several edges into one node
    become a sum. An edge that closes a cycle carries the value of the previous time step.

    Args:
        graph: a ``nir.NIRGraph``.
        dt: the length of a time step, in seconds; None: the ``dt`` in the metadata if this package
            wrote the graph, otherwise 1e-4, the default of snntorch.

    Returns:
        The IR, and the state dict of its model, in float32.

    Raises:
        ArgumentError: the graph breaks a rule of NIR, or has a node that no layer computes. The
            message names the node.

    Example:
        >>> import nir, numpy as np, layergraph as lg
        >>> from layergraph_nir import from_nir
        >>> graph = nir.NIRGraph.from_list(nir.Linear(weight=np.ones((2, 3), np.float32)))
        >>> ir, state = from_nir(graph)
        >>> lg.to_torch(ir, state)(torch.ones(1, 3))
        tensor([[3., 3.]], grad_fn=<MmBackward0>)
    """
    if not isinstance(graph, nir.NIRGraph):
        raise ArgumentError(f"a {type(graph).__name__} stands where a nir.NIRGraph belongs")
    said = _metadata_of(graph)
    step = dt if dt is not None else said.get("dt", DT)
    if type(step) is not float or not 0 < step < float("inf"):
        raise ArgumentError(f"dt is {step!r}; give a number of seconds above zero, such as 1e-4")
    reader = _Reader(step)
    inputs, outputs = (
        each if isinstance(each, list) else [] for each in (said.get("inputs"), said.get("outputs"))
    )
    reader.read(graph, "", inputs, outputs)
    root, *rest = reversed(reader.implementations)
    while any(each.name == root.name or each.name.startswith(f"{root.name}.") for each in rest):
        root.name += "_"
    ir = Ir([root, *reversed(rest)], root=root.name)
    check(ir)
    return ir, reader.state


def _metadata_of(graph: Any) -> dict[str, Any]:
    """Return the metadata that ``to_nir`` wrote."""
    text = graph.metadata.get("layergraph")
    try:
        said = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


class _Reader:
    """Collects the layers of a graph and its nested graphs.

    Args:
        dt: the length of a time step, in seconds.
    """

    def __init__(self, dt: float) -> None:
        self.dt = dt
        self.implementations: list[Implementation] = []
        self.state: dict[str, torch.Tensor] = {}
        self._layers: dict[str, Primitive] = {}

    def read(
        self, graph: Any, path: str, inputs: list[str], outputs: list[str], level: int = 0
    ) -> Shape:
        """Add a graph with its nested graphs, and return the shape of its first output."""
        one = CheckedGraph(graph, path, inputs, outputs)
        if level > MOST_LEVELS:
            raise ArgumentError(f"{path!r}: graphs are nested more than {MOST_LEVELS} levels deep")
        if level and (len(one.inputs) != 1 or len(one.outputs) != 1):
            raise ArgumentError(
                f"{path!r}: it has {len(one.inputs)} inputs and {len(one.outputs)} outputs; a "
                "nested graph needs one of each, because an edge of NIR cannot select one"
            )
        calls = {name: self._layer(one, name, level) for name in one.inner}
        shapes = one.shapes({name: call[1] for name, call in calls.items()})
        nodes = _Nodes(one, {name: call[0] for name, call in calls.items()})
        for name, source in nodes.feedbacks.items():
            if source not in shapes:
                raise ArgumentError(
                    f"{one.where(source)}: its value closes a cycle, and its size is unknown; "
                    "state the sizes of the inputs"
                )
            self.implementations.append(
                Implementation("nir_feedback", {"shape": shapes[source]}, name=name)
            )
        listed = graph_from_nodes(nodes.listed())
        made = Implementation("module", name=path or "root", nodes=listed.nodes, edges=listed.edges)
        self.implementations.append(made)
        return shapes.get(one.outputs[0], ())

    def _layer(self, one: CheckedGraph, name: str, level: int) -> tuple[tuple[str, str], Any]:
        """Return the type and the name of a node's layer, and the layer or the shape of a graph."""
        node, where = one.nodes[name], one.path_of(name)
        if isinstance(node, nir.NIRGraph):
            shape = self.read(node, where, [], [], level + 1)
            return ("module", where), shape
        try:
            layer = primitive_of(node, self.dt)
        except PrimitiveError as error:
            raise ArgumentError(f"{one.where(name)}: {error}") from None
        known = node.metadata.get("layergraph")
        if isinstance(known, str) and _is_same(self._layers.get(known), layer):
            return (layer.type, known), layer
        self._layers[where] = layer
        self.implementations.append(Implementation(layer.type, layer.data, name=where))
        for key, numbers in layer.tensors.items():
            tensor = torch.from_numpy(np.ascontiguousarray(numbers, np.float32))
            self.state[f"{where}.{key}"] = tensor.clone().reshape(numbers.shape)
        return (layer.type, where), layer


def _is_same(one: Primitive | None, other: Primitive) -> bool:
    """Return True if two nodes are calls of one stateless layer."""
    if one is None or (one.type, one.data) != (other.type, other.data):
        return False
    is_neuron = one.type in PRIMITIVES and PRIMITIVES[one.type].states_of
    return not is_neuron and all(
        np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors
    )


class _Nodes:
    """The nodes of the IR for one graph.

    Args:
        one: the graph.
        calls: the type and the name of the layer of each node.

    Attributes:
        feedbacks: the source of the value that each Feedback layer stores, by name of the layer.
    """

    def __init__(self, one: CheckedGraph, calls: dict[str, tuple[str, str]]) -> None:
        self._one = one
        self._calls = calls
        self._namer = Namer(["output"])
        delayed = {src for src, _ in one.delayed}
        self.feedbacks: dict[str, str] = {}
        for src, _ in one.edges:
            if src in delayed:
                self.feedbacks.setdefault(one.path_of(self._unused_name(f"{src}_before")), src)

    def _unused_name(self, wish: str) -> str:
        while wish in self._one.nodes:
            wish += "_"
        return wish

    def listed(self) -> Iterator[Node]:
        """Yield the nodes in execution order."""
        values: dict[str, Ref] = {}
        before: dict[str, Ref] = {}
        for name in self._one.inputs:
            mine = self._namer.name(name)
            values[name] = Ref(mine)
            yield Node(mine, INPUT, name if is_argument_name(name) else mine)
        first = values[self._one.inputs[0]]
        for layer, src in self.feedbacks.items():
            before[src] = Ref(self._namer.name(f"{src}_before"))
            yield Node(before[src].node, "nir_feedback", layer, (first,))
        sources = self._one.sources()
        keeping = {src: layer for layer, src in self.feedbacks.items()}
        for name in self._one.order:
            if name in values:
                continue
            given = [
                before[src] if (src, name) in self._one.delayed else values[src]
                for src in sources[name]
            ]
            total = given[0]
            for each in given[1:]:
                sum_name = self._namer.name("add")
                yield Node(sum_name, "function", "operator.add", (total, each))
                total = Ref(sum_name)
            if name in self._one.outputs:
                values[name] = total
                continue
            kind, layer = self._calls[name]
            values[name] = Ref(self._namer.name(name))
            yield Node(values[name].node, kind, layer, (total,))
            if name in keeping:
                # Later nodes read the stored value, so that dead-code elimination keeps this node.
                value, values[name] = values[name], Ref(self._namer.name(f"keep_{name}"))
                yield Node(values[name].node, "nir_feedback", keeping[name], (first, value))
        returned = tuple(values[name] for name in self._one.outputs)
        yield Node("output", OUTPUT, "output", returned if len(returned) == 1 else (returned,))
