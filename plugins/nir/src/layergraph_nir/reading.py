"""``from_nir``: a graph of NIR as an IR and a state dict."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import nir  # type: ignore[import-untyped]
import numpy as np
import torch

from layergraph.errors import ArgumentError
from layergraph.ir import Implementation, Ir, Node, Ref, check, graph_from_nodes
from layergraph.ir.graph import INPUT, OUTPUT
from layergraph.ir.names import Namer, is_argument_name
from layergraph_nir.cycles import delayed_edges, in_order
from layergraph_nir.modules import DT, PRIMITIVES
from layergraph_nir.primitives import Primitive, PrimitiveError, Shape, primitive_of

MOST_LEVELS = 32
"""The most levels of graphs in graphs."""


def from_nir(graph: Any, *, dt: float | None = None) -> tuple[Ir, dict[str, torch.Tensor]]:
    """Return the model that a graph of NIR describes: one time step of it.

    Each node becomes a layer of its name, a graph in the graph a composite. Neurons keep their
    states from call to call; see :mod:`layergraph_nir.modules`. Several edges into one node add up.
    An edge that closes a cycle carries the value of the step before.

    Args:
        graph: a ``nir.NIRGraph``.
        dt: the length of a time step, in seconds; None: what the graph says if this package wrote
            it, else 1e-4, which snntorch and other libraries take for granted.

    Returns:
        The IR, and the state dict of its model, in float32.

    Raises:
        ArgumentError: the graph breaks a rule of NIR, or has what no layer computes. The message
            names the node.

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
    said = _said(graph)
    step = dt if dt is not None else said.get("dt", DT)
    if type(step) is not float or not 0 < step < float("inf"):
        raise ArgumentError(f"dt is {step!r}; give a number of seconds above zero, such as 1e-4")
    reader = _Reader(step)
    names = [said.get("inputs"), said.get("outputs")]
    reader.read(graph, "", *(each if isinstance(each, list) else [] for each in names))
    root, *rest = reversed(reader.implementations)
    while any(each.name == root.name or each.name.startswith(f"{root.name}.") for each in rest):
        root.name += "_"
    ir = Ir([root, *reversed(rest)], root=root.name)
    check(ir)
    return ir, reader.state


def _said(graph: Any) -> dict[str, Any]:
    """Return what ``to_nir`` has noted in a graph."""
    text = graph.metadata.get("layergraph")
    try:
        said = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _natural(name: str) -> list[Any]:
    """Return the key that sorts ``output_10`` behind ``output_9``: files list nodes by name."""
    parts = re.split(r"([0-9]+)", name)
    return [(len(part.lstrip("0")), part) if part.isdecimal() else part for part in parts]


class _Reader:
    """Collects the layers of a graph and of those in it.

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
        """Add a graph and what is in it, and return the shape of its first output."""
        one = _Graph(graph, path, inputs, outputs)
        if level > MOST_LEVELS:
            raise ArgumentError(f"{path!r}: graphs are nested more than {MOST_LEVELS} levels deep")
        if level and (len(one.inputs) != 1 or len(one.outputs) != 1):
            raise ArgumentError(
                f"{path!r}: it has {len(one.inputs)} inputs and {len(one.outputs)} outputs; an "
                "edge of NIR names no input of a graph, so that a graph in a graph needs one of each"
            )
        calls = {name: self._layer(one, name, level) for name in one.inner}
        shapes = one.shapes({name: call[1] for name, call in calls.items()})
        nodes = _Nodes(one, {name: call[0] for name, call in calls.items()})
        for name, source in nodes.feedbacks.items():
            if source not in shapes:
                raise ArgumentError(
                    f"{one.where(source)}: its value goes back, and its size is not known; state "
                    "the sizes of inputs"
                )
            self.implementations.append(
                Implementation("nir_feedback", {"shape": shapes[source]}, name=name)
            )
        listed = graph_from_nodes(nodes.listed())
        made = Implementation(
            "module", name=path or "root", nodes=listed.nodes, edges=listed.edges
        )
        self.implementations.append(made)
        return shapes.get(one.outputs[0], ())

    def _layer(self, one: _Graph, name: str, level: int) -> tuple[tuple[str, str], Any]:
        """Return the type and name of the layer of a node, and what gives its shape."""
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
    """Return whether a node is a second call of a layer without a state."""
    if one is None or (one.type, one.data) != (other.type, other.data):
        return False
    is_neuron = one.type in PRIMITIVES and PRIMITIVES[one.type].states_of
    return not is_neuron and all(
        np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors
    )


_STATEFUL = tuple(getattr(nir, each.__name__) for each in PRIMITIVES.values() if each.states_of)


def _keeps_state(node: Any) -> bool:
    """Return whether a node gives the value of a neuron, or of a graph, which may have neurons."""
    return isinstance(node, (*_STATEFUL, nir.NIRGraph))


class _Graph:
    """One graph of NIR, checked.

    Args:
        graph: the graph.
        path: the path of its module.
        inputs: its inputs in order, as far as they are known.
        outputs: its outputs, likewise.
    """

    def __init__(self, graph: Any, path: str, inputs: list[str], outputs: list[str]) -> None:
        self.nodes: dict[str, Any] = graph.nodes
        self.path = path
        self.edges = [(str(src), str(dst)) for src, dst in graph.edges]
        self.inputs = self._of(nir.Input, inputs)
        self.outputs = self._of(nir.Output, outputs)
        ends = {*self.inputs, *self.outputs}
        self.inner = [name for name in self.nodes if name not in ends]
        self._check()
        keeps_state = {name for name in self.inner if _keeps_state(self.nodes[name])}
        order = [*self.inputs, *self.inner, *self.outputs]
        self.delayed = delayed_edges(order, self.edges, keeps_state)
        self.order = in_order(order, [edge for edge in self.edges if edge not in self.delayed])
        self.inner = [name for name in self.order if name not in ends]

    def _of(self, cls: Any, order: list[str]) -> list[str]:
        found = sorted((n for n, node in self.nodes.items() if isinstance(node, cls)), key=_natural)
        return order if sorted(map(str, order)) == sorted(found) else found

    def where(self, name: str) -> str:
        """Return the place of a node for messages."""
        return f"the node {self.path_of(name)!r} ({type(self.nodes[name]).__name__})"

    def path_of(self, name: str) -> str:
        """Return the path of the layer of a node."""
        return f"{self.path}.{name}" if self.path else name

    def _check(self) -> None:
        place = f"the graph {self.path!r}" if self.path else "the graph"
        if not self.inputs or not self.outputs:
            raise ArgumentError(f"{place} has no Input or no Output; add nodes of these types")
        read, fed = set(), set()
        for src, dst in self.edges:
            for name in (src, dst):
                if name not in self.nodes:
                    raise ArgumentError(f"{place}: the edge {(src, dst)} names no node {name!r}")
            read.add(src)
            fed.add(dst)
        if len(set(self.edges)) != len(self.edges):
            raise ArgumentError(f"{place} has an edge twice; NIR has one edge between two nodes")
        if fed.intersection(self.inputs) or read.intersection(self.outputs):
            raise ArgumentError(f"{place} has an edge into an Input, or from an Output")
        for name in self.nodes:
            if name in self.inner and not all(part and "/" not in part for part in name.split(".")):
                raise ArgumentError(f"{place}: {name!r} is no path of a module; rename the node")
            if name not in fed and name not in self.inputs:
                raise ArgumentError(f"{self.where(name)}: no edge leads to it; add one, or an Input")
            leads = name.rpartition(".")[0]
            while leads:
                if leads in self.nodes and leads in self.inner:
                    raise ArgumentError(f"{self.where(name)}: {leads!r} is a node too; rename one")
                leads = leads.rpartition(".")[0]

    def sources(self) -> dict[str, list[str]]:
        """Return the nodes whose values each node reads, in the order of edges."""
        found: dict[str, list[str]] = {}
        for src, dst in self.edges:
            found.setdefault(dst, []).append(src)
        return found

    def shapes(self, layers: dict[str, Any]) -> dict[str, Shape]:
        """Return the shapes of values without the batch, as far as they follow from the graph.

        Args:
            layers: the layer of each node, or the shape that a graph gives.

        Raises:
            ArgumentError: a node takes another shape than it gets.
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
        waiting, after = list(found), self._after()
        while waiting:
            src = waiting.pop()
            for dst in after.get(src, ()):
                given = found[src]
                gives = self._gives(dst, layers.get(dst), given)
                if dst not in found:
                    found[dst] = gives
                    waiting.append(dst)
        return found

    def _after(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for src, dst in self.edges:
            found.setdefault(src, []).append(dst)
        return found

    def _gives(self, name: str, layer: Any, given: Shape) -> Shape:
        if not isinstance(layer, Primitive):
            return layer if isinstance(layer, tuple) else given
        try:
            if layer.type == "linear" and given != layer.takes:
                raise PrimitiveError(f"it takes the shape {layer.takes}, and gets {given}")
            return layer.gives(given)
        except PrimitiveError as error:
            raise ArgumentError(f"{self.where(name)}: {error}") from None


class _Nodes:
    """The nodes of the IR for one graph.

    Args:
        one: the graph.
        calls: the type and the name of the layer of each node.

    Attributes:
        feedbacks: the layers that keep a value for the next step, by name, with its source.
    """

    def __init__(self, one: _Graph, calls: dict[str, tuple[str, str]]) -> None:
        self._one = one
        self._calls = calls
        self._namer = Namer(["output"])
        delayed = {src for src, _ in one.delayed}
        self.feedbacks: dict[str, str] = {}
        for src, _ in one.edges:
            if src in delayed:
                self.feedbacks.setdefault(one.path_of(self._free(f"{src}_before")), src)

    def _free(self, wish: str) -> str:
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
        for layer, src in self.feedbacks.items():
            keep = self._namer.name(f"keep_{src}")
            yield Node(keep, "nir_feedback", layer, (first, values[src]))
        returned = tuple(values[name] for name in self._one.outputs)
        yield Node("output", OUTPUT, "output", returned if len(returned) == 1 else (returned,))
