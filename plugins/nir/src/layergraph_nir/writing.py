"""``to_nir``: a model as a graph of NIR."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import nir  # type: ignore[import-untyped]
import torch

from layergraph.errors import ArgumentError
from layergraph.hook_types.lowerings import Lowering
from layergraph.ir import Ir
from layergraph.ir.values import leaves, map_leaves
from layergraph_backends import Backend, LoweringError, lower
from layergraph_backends.errors import Lack
from layergraph_backends.plain import UNKNOWN
from layergraph_nir.graph import (
    GraphBuilder,
    NeuronState,
    Shape,
    StoredTensor,
    UnsayableError,
    Wire,
)
from layergraph_nir.modules import DT, PRIMITIVES

if TYPE_CHECKING:
    from layergraph_backends import Step

METADATA = "layergraph"
SoftResets = Literal["exact", "zero"]


class NirBackend(Backend):
    """Collects the graph of NIR of a model.

    Args:
        dt: the length of a time step, in seconds.
        soft_resets: see :func:`to_nir`.
    """

    target = "nir"
    takes_turns = False  # a graph of NIR is one step of time

    def __init__(self, dt: float, soft_resets: SoftResets) -> None:
        self.dt = dt
        self.soft_resets = soft_resets
        self.graph = GraphBuilder()
        self._called: set[str] = set()

    def input(self, name: str, meta: Any) -> Any:
        """Return the wire of an input."""
        shape = shape_of(meta)
        if shape is None:
            raise ArgumentError(
                f"the shape of the input {name!r} is {getattr(meta, 'shape', meta)}; give args "
                "whose first dimension is the batch, and whose other sizes are integers"
            )
        return self.graph.add_input(name, shape)

    def tensor(self, key: str, tensor: torch.Tensor) -> Any:
        """Return a parameter or buffer that a graph reads."""
        return StoredTensor(key, tensor)

    def composite(self, step: Step, lower: Callable[..., Any]) -> Any:
        """Return the value of a composite: a graph of its own if it has one input and one output.

        NIR has no edge to one of several inputs of a graph. The nodes of any other composite stand
        in the graph around it, under their paths.
        """
        outer, inner = self.graph, GraphBuilder(step.layer.name if step.layer else step.name)
        given: dict[str, Wire] = {}

        def enter(value: Any) -> Any:
            if not isinstance(value, Wire):
                return value
            wire = inner.add_input("input", value.shape)
            given[wire.names[0]] = value
            return wire

        self.graph = inner
        try:
            value = lower(*map_leaves(enter, step.args), **map_leaves(enter, step.kwargs))
        finally:
            self.graph = outer
        if any(leaf is UNKNOWN for leaf in leaves(value)):
            return UNKNOWN
        for name in inner.states:
            outer.take_state(given[name])
        return self._left(inner, given, value, self.name_of(step))

    def _left(self, inner: GraphBuilder, given: dict[str, Wire], value: Any, name: str) -> Any:
        outer = self.graph
        wires = [leaf for leaf in leaves(value) if isinstance(leaf, Wire)]
        read = inner.used_inputs()
        if len(read) == 1 and len({wire.names for wire in wires}) == 1 and wires:
            for unread in given.keys() - set(read):
                del inner.nodes[unread]
            inner.states.clear()
            inner.add_output("output", wires[0])
            result = outer.add(name, inner.finished(), [given[read[0]]], wires[0].shape)
            return map_leaves(lambda leaf: result if isinstance(leaf, Wire) else leaf, value)
        renamed = outer.splice(inner, name, given)

        def leave(leaf: Any) -> Any:
            if not isinstance(leaf, Wire):
                return leaf
            found: tuple[str, ...] = ()
            for each in leaf.names:
                found += given[each].names if each in given else (renamed[each],)
            return Wire(outer, tuple(dict.fromkeys(found)), leaf.shape)

        return map_leaves(leave, value)

    def lacking(self, step: Step) -> str:
        """Return why NIR cannot say a step that no handler says."""
        if step.kind.startswith("batchnorm"):
            return (
                "NIR has no normalization; fold it into the layer before: "
                "ir, state, report = lg.run_passes(ir, ['fold-batchnorm'], state)"
            )
        if step.kind == "layergraph.loop":
            return "a graph of NIR is one time step; convert the network of one step"
        return "NIR has no primitive for it"

    def name_of(self, step: Step) -> str:
        """Return the name for the node of a step: the path of its layer in the present graph."""
        if step.layer is None:
            return step.name
        path, inside = step.layer.name, f"{self.graph.path}."
        return path[len(inside) :] if path.startswith(inside) else path

    def add(self, step: Step, node: Any, wire: Wire, *, keeps_state: bool = False) -> Wire:
        """Add the node of a step.

        Raises:
            UnsayableError: the step calls a neuron again.
        """
        if step.layer is not None:
            if keeps_state and step.layer.name in self._called:
                raise UnsayableError(
                    f"the model calls the neuron {step.layer.name!r} again, and a graph of NIR is "
                    "one time step, in which each neuron runs once; convert the network of one step"
                )
            if step.layer.name in self._called:
                node.metadata = {**node.metadata, METADATA: step.layer.name}
            self._called.add(step.layer.name)
        shape = shape_of(step.meta if not isinstance(step.meta, tuple) else step.meta[0])
        if shape is None:
            raise UnsayableError(f"its result is {step.meta}, and NIR states sizes without a batch")
        return self.graph.add(self.name_of(step), node, [wire], shape)

    def signal(self, step: Step, position: int = 0, name: str = "input") -> Wire:
        """Return an argument of a step that is a signal.

        Raises:
            UnsayableError: it is none.
        """
        value = step.argument(position, name)
        if isinstance(value, Wire):
            return value
        raise UnsayableError("its input does not depend on an input of the model")


def shape_of(meta: Any) -> Shape | None:
    """Return the shape of a value without its batch; None if that is no tensor of known sizes."""
    shape = getattr(meta, "shape", None)
    if not shape or any(type(size) is not int for size in shape[1:]):
        return None
    return tuple(shape[1:])


def to_nir(
    ir: Ir,
    state: Mapping[str, torch.Tensor] | None = None,
    args: Sequence[Any] | None = None,
    *,
    dt: float | None = None,
    soft_resets: SoftResets = "exact",
    handlers: Iterable[Lowering] = (),
) -> Any:
    """Return the graph of NIR that describes one time step of a model.

    The names of nodes are the paths of layers. A composite with one input and one output is a graph
    in the graph; the nodes of any other one stand in the graph around it.

    Args:
        ir: the IR of the model, which computes one time step in evaluation mode.
        state: the state dict; None: the weights are those of new layers.
        args: the arguments of a call: tensors or shapes, whose first dimension is the batch. NIR
            states the sizes of all values.
        dt: the length of a time step, in seconds: NIR has time constants where snntorch has decay
            rates. None: that of the primitives of NIR in the model, else 1e-4, which snntorch and
            other libraries take for granted.
        soft_resets: the LIF of NIR sets its potential to a value when it fires. ``"exact"``: a
            neuron that subtracts its threshold becomes a graph that does so, of LI, Threshold and
            Scale. ``"zero"``: it becomes a LIF that is set to zero, as snntorch's own exporter
            writes it, and computes something else.
        handlers: rows for further layers, which come before those of the plugins.

    Returns:
        A ``nir.NIRGraph``.

    Raises:
        LoweringError: NIR has no primitive for some layers or functions; it lists all of them.
        ArgumentError: the arguments do not fit.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph_nir import to_nir
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3))
        >>> graph = to_nir(lg.to_ir(model), model.state_dict(), [(1, 4)])
        >>> sorted(graph.nodes), graph.edges
        (['0', 'input', 'output'], [('input', '0'), ('0', 'output')])
    """
    if args is None:
        raise ArgumentError("NIR states the sizes of all values; give args, as in args=[(1, 784)]")
    if soft_resets not in ("exact", "zero"):
        raise ArgumentError(f"soft_resets is {soft_resets!r}; give 'exact' or 'zero'")
    if dt is None:
        known = {each.attributes.get("dt", DT) for each in ir.values() if each.type in PRIMITIVES}
        dt = float(min(known, default=DT))
    if not 0 < dt < float("inf"):
        raise ArgumentError(f"dt is {dt!r}; give a number of seconds above zero, such as 1e-4")
    backend = NirBackend(dt, soft_resets)
    lowered = lower(ir, backend, state, args, handlers=handlers)
    graph = backend.graph
    outputs = [leaf for leaf in leaves(lowered.value) if not isinstance(leaf, NeuronState)]
    if not outputs or not all(isinstance(each, Wire) for each in outputs):
        raise LoweringError("nir", (Lack(f"{ir.root}:output", "output", "it gives no signal"),))
    said: dict[str, Any] = {
        "dt": dt,
        "inputs": [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)],
        "guards": list(lowered.guards),
        "outputs": [
            graph.add_output("output" if len(outputs) == 1 else f"output_{number}", wire).names[0]
            for number, wire in enumerate(outputs)
        ],
    }
    said["inputs"] = [name for name in said["inputs"] if name not in graph.states]
    try:
        return graph.finished({METADATA: json.dumps(said)})
    except UnsayableError as error:
        raise LoweringError("nir", (Lack(f"{ir.root}:input", "input", str(error)),)) from None
