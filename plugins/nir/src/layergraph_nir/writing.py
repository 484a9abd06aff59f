"""``to_nir``: convert a model to a graph of NIR."""

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
    Signal,
    StoredTensor,
    UnsupportedError,
)
from layergraph_nir.modules import DT, PRIMITIVES

if TYPE_CHECKING:
    from layergraph_backends import Step

METADATA = "layergraph"
SoftResets = Literal["exact", "zero"]


class NirBackend(Backend):
    """The back end that builds the graph of NIR of a model.

    Args:
        dt: the length of a time step, in seconds.
        soft_resets: see :func:`to_nir`.
    """

    target = "nir"
    takes_turns = False  # a graph of NIR describes one time step

    def __init__(self, dt: float, soft_resets: SoftResets) -> None:
        self.dt = dt
        self.soft_resets = soft_resets
        self.graph = GraphBuilder()
        self._called: set[str] = set()

    def input(self, name: str, meta: Any) -> Any:
        """Add an input, and return its signal."""
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
        """Convert a composite, and return its result.

        A composite with one input and one output becomes a nested graph. Any other composite is
        inlined, and its path precedes the names of its nodes: an edge of NIR cannot select one of
        several inputs of a nested graph.
        """
        outer, inner = self.graph, GraphBuilder(step.layer.name if step.layer else step.name)
        given: dict[str, Signal] = {}

        def enter(value: Any) -> Any:
            if not isinstance(value, Signal):
                return value
            signal = inner.add_input("input", value.shape)
            given[signal.names[0]] = value
            return signal

        self.graph = inner
        try:
            value = lower(*map_leaves(enter, step.args), **map_leaves(enter, step.kwargs))
        finally:
            self.graph = outer
        if any(leaf is UNKNOWN for leaf in leaves(value)):
            return UNKNOWN
        for name in inner.states:
            outer.take_state(given[name])
        return self._result_of_group(inner, given, value, self.name_of(step))

    def _result_of_group(
        self, inner: GraphBuilder, given: dict[str, Signal], value: Any, name: str
    ) -> Any:
        """Put the graph of a composite into the graph around it, and return the result."""
        outer = self.graph
        signals = [leaf for leaf in leaves(value) if isinstance(leaf, Signal)]
        read = inner.used_inputs()
        if len(read) == 1 and len({signal.names for signal in signals}) == 1 and signals:
            for unread in given.keys() - set(read):
                del inner.nodes[unread]
            inner.states.clear()
            inner.add_output("output", signals[0])
            result = outer.add(name, inner.finished(), [given[read[0]]], signals[0].shape)
            return map_leaves(lambda leaf: result if isinstance(leaf, Signal) else leaf, value)
        renamed = outer.splice(inner, name, given)

        def leave(leaf: Any) -> Any:
            if not isinstance(leaf, Signal):
                return leaf
            found: tuple[str, ...] = ()
            for each in leaf.names:
                found += given[each].names if each in given else (renamed[each],)
            return Signal(outer, tuple(dict.fromkeys(found)), leaf.shape)

        return map_leaves(leave, value)

    def lacking(self, step: Step) -> str:
        """Return the reason why NIR does not support a step that has no handler."""
        if step.kind.startswith("batchnorm"):
            return (
                "NIR has no normalization; fold it into the layer before: "
                "ir, state, report = lg.run_passes(ir, ['fold-batchnorm'], state)"
            )
        if step.kind == "layergraph.loop":
            return "a graph of NIR is one time step; convert the network of one step"
        return "NIR has no primitive for it"

    def name_of(self, step: Step) -> str:
        """Return the name for the node of a step: the path of its layer, relative to this graph."""
        if step.layer is None:
            return step.name
        path, inside = step.layer.name, f"{self.graph.path}."
        return path[len(inside) :] if path.startswith(inside) else path

    def add(self, step: Step, node: Any, signal: Signal, *, keeps_state: bool = False) -> Signal:
        """Add the node of a step, and return its output.

        Args:
            step: the step.
            node: the node of NIR.
            signal: the input of the node.
            keeps_state: True for a neuron, which a model may call only once.

        Raises:
            UnsupportedError: the model calls a neuron twice, or the shape of the result is unknown.
        """
        if step.layer is not None:
            if keeps_state and step.layer.name in self._called:
                raise UnsupportedError(
                    f"the model calls the neuron {step.layer.name!r} again, and a graph of NIR is "
                    "one time step, in which each neuron runs once; convert the network of one step"
                )
            if step.layer.name in self._called:
                node.metadata = {**node.metadata, METADATA: step.layer.name}
            self._called.add(step.layer.name)
        shape = shape_of(step.meta if not isinstance(step.meta, tuple) else step.meta[0])
        if shape is None:
            raise UnsupportedError(f"its result is {step.meta}; NIR needs a tensor of known sizes")
        return self.graph.add(self.name_of(step), node, [signal], shape)

    def signal(self, step: Step, position: int = 0, name: str = "input") -> Signal:
        """Return an argument of a step that depends on an input of the model.

        Raises:
            UnsupportedError: the argument is a constant or a parameter.
        """
        value = step.argument(position, name)
        if isinstance(value, Signal):
            return value
        raise UnsupportedError("its input does not depend on an input of the model")


def shape_of(meta: Any) -> Shape | None:
    """Return the shape of a tensor without the batch; None if that is unknown."""
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
    """Convert a model to a graph of NIR, which describes one time step.

    The name of a node is the path of its layer. A composite with one input and one output becomes a
    nested graph; any other composite is inlined.

    Args:
        ir: the IR of a model whose call computes one time step. NIR gets its evaluation graph.
        state: the state dict; None: the layers are initialized as new ones.
        args: the arguments of a call: tensors or shapes, whose first dimension is the batch. They
            determine the shapes of all values, which NIR stores.
        dt: the length of a time step, in seconds. It converts the decay rates of snntorch to the
            time constants of NIR. None: the ``dt`` of the modules of this package in the model,
            otherwise 1e-4, the default of snntorch.
        soft_resets: the conversion of neurons that subtract their threshold when they fire; the LIF
            of NIR sets its potential to a fixed value instead. ``"exact"``: such a neuron becomes
            a graph of LI, Threshold and Scale, which computes the same. ``"zero"``: it becomes a
            LIF that resets to zero, as in snntorch's exporter, and computes other spikes.
        handlers: rows for further layers; they take precedence over the rows of the plugins.

    Returns:
        A ``nir.NIRGraph``.

    Raises:
        LoweringError: NIR has no primitive for some layers or functions. The error lists all.
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
    if not outputs or not all(isinstance(each, Signal) for each in outputs):
        raise LoweringError(
            "nir",
            (Lack(f"{ir.root}:output", "output", "it does not depend on an input of the model"),),
        )
    said: dict[str, Any] = {
        "dt": dt,
        "inputs": [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)],
        "guards": list(lowered.guards),
        "outputs": [
            graph.add_output("output" if len(outputs) == 1 else f"output_{number}", signal).names[0]
            for number, signal in enumerate(outputs)
        ],
    }
    said["inputs"] = [name for name in said["inputs"] if name not in graph.states]
    try:
        return graph.finished({METADATA: json.dumps(said)})
    except UnsupportedError as error:
        raise LoweringError("nir", (Lack(f"{ir.root}:input", "input", str(error)),)) from None
