"""Handlers for the neurons of snntorch.

A step of a neuron of snntorch is ``mem = beta * mem + input``, and one of NIR's LIF is a step of
forward Euler of ``tau * v' = (v_leak - v) + r * input``. They agree for ``tau = dt / (1 - beta)``
and ``r = tau / dt``, as snntorch writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nir  # type: ignore[import-untyped]
import numpy as np
import torch

from layergraph.hook_types.lowerings import Lowering
from layergraph_nir.graph import GraphBuilder, NeuronState, UnsayableError, Wire
from layergraph_nir.torch_layers import broadcast, convolution, linear, take_states
from layergraph_nir.writing import NirBackend

if TYPE_CHECKING:
    from layergraph_backends import Step


@dataclass
class Neuron:
    """The equations of a neuron, with a number for each element.

    Attributes:
        wire: its input.
        dt: the length of a time step.
        beta: the decay of the membrane in a step.
        gain: the factor of the input in a step.
        threshold: the threshold.
        alpha: the decay of the synaptic current in a step; None: there is no current.
        reset: ``subtract``, ``zero`` or ``none``.
        recurrent: the node of the recurrent connection; None: there is none.
        factor: the factor of the spikes; None: 1.
    """

    wire: Wire
    dt: float
    beta: Any
    gain: Any
    threshold: Any
    alpha: Any
    reset: str
    recurrent: Any
    factor: Any

    def time(self, decay: Any) -> Any:
        """Return the time constant of a decay rate."""
        rate = 1 - decay.astype(np.float64)
        if (rate <= 0).any():
            raise UnsayableError("some of its elements do not decay, and some do; NIR has no such")
        return (self.dt / rate).astype(decay.dtype)

    def resistance(self, decay: Any, gain: Any) -> Any:
        """Return the resistance for a factor of the input in a step."""
        return (gain.astype(np.float64) / (1 - decay.astype(np.float64))).astype(decay.dtype)

    def integrator(self, decay: Any, gain: Any) -> Any:
        """Return the node that integrates its input, and gives what it has."""
        if (decay == 1).all():
            return nir.I(r=(gain.astype(np.float64) / self.dt).astype(decay.dtype))
        resistance = self.resistance(decay, gain)
        return nir.LI(tau=self.time(decay), r=resistance, v_leak=np.zeros_like(decay))

    def firing(self) -> Any:
        """Return the node that integrates its input, fires, and sets itself to zero."""
        zeros = np.zeros_like(self.beta)
        ends = {"v_threshold": self.threshold, "v_reset": zeros}
        if self.alpha is not None:
            ones = np.ones_like(self.alpha)
            return nir.CubaLIF(
                tau_syn=self.time(self.alpha),
                tau_mem=self.time(self.beta),
                r=self.resistance(self.beta, self.gain),
                v_leak=zeros,
                w_in=self.resistance(self.alpha, ones),
                **ends,
            )
        if (self.beta == 1).all():
            return nir.IF(r=(self.gain.astype(np.float64) / self.dt).astype(zeros.dtype), **ends)
        resistance = self.resistance(self.beta, self.gain)
        return nir.LIF(tau=self.time(self.beta), r=resistance, v_leak=zeros, **ends)

    @property
    def is_one_node(self) -> bool:
        """Return whether one node of NIR is the neuron."""
        return self.reset == "zero" and self.recurrent is None and self.factor is None

    def build(self, graph: GraphBuilder) -> None:
        """Add the nodes of the neuron, with its input and output, to a graph of its own."""
        shape = self.wire.shape
        source = graph.add_input("input", shape)
        if self.reset == "zero":
            entry, spikes = "lif", graph.add("lif", self.firing(), [source], shape)
        else:
            entry, spikes = self._build_parts(graph, source)
        if self.recurrent is not None:
            back = graph.add("recurrent", self.recurrent, [spikes], shape)
            graph.edges.append((back.names[0], entry))
        if self.factor is not None:
            spikes = graph.add("factor", nir.Scale(scale=self.factor), [spikes], shape)
        graph.add_output("output", spikes)

    def _build_parts(self, graph: GraphBuilder, source: Wire) -> tuple[str, Wire]:
        shape, entry = self.wire.shape, "mem"
        if self.alpha is not None:
            ones = np.ones_like(self.alpha)
            source, entry = (
                graph.add("syn", self.integrator(self.alpha, ones), [source], shape),
                "syn",
            )
        mem = graph.add("mem", self.integrator(self.beta, self.gain), [source], shape)
        spikes = graph.add("spike", nir.Threshold(threshold=self.threshold), [mem], shape)
        if self.reset == "subtract":
            back = (-self.threshold / self.gain).astype(self.threshold.dtype)
            graph.add("reset", nir.Scale(scale=back), [spikes], shape)
            graph.edges.append(("reset", "mem"))
        return entry, spikes


def lower_neuron(step: Step, backend: NirBackend) -> Any:
    """Say a neuron of snntorch as a node of NIR, or as a graph of several."""
    module: Any = step.module
    wire = backend.signal(step, 0, "input_")
    take_states(step, backend, 1)
    for name in ("inhibition", "state_quant"):
        if getattr(module, name):
            raise UnsayableError(f"its {name} is set, which NIR has no primitive for")
    neuron = _neuron(step.kind, module, wire, backend)
    if neuron.is_one_node:
        result = backend.add(step, neuron.firing(), wire, keeps_state=True)
    else:
        graph = GraphBuilder()
        neuron.build(graph)
        result = backend.add(step, graph.finished(), wire, keeps_state=True)
    if module.init_hidden and not module.output:
        return result
    states = 2 if neuron.alpha is not None else 1
    return (result, *(NeuronState() for _ in range(states)))


def _neuron(kind: str, module: Any, wire: Wire, backend: NirBackend) -> Neuron:
    def numbers(tensor: torch.Tensor) -> Any:
        return broadcast(tensor, wire.shape)

    if kind == "lapicque":
        # Its numbers may be integers.
        dtype = torch.promote_types(torch.float32, module.R.dtype)
        rate = module.time_step.double() / (module.R.double() * module.C.double())
        beta = numbers((1 - rate).to(dtype))
        gain = numbers((rate * module.R.double()).to(dtype))
    else:
        beta = numbers(module.beta.clamp(0, 1))
        gain = np.ones_like(beta)
    factor = module.graded_spikes_factor
    return Neuron(
        wire=wire,
        dt=backend.dt,
        beta=beta,
        gain=gain,
        threshold=numbers(module.threshold).astype(beta.dtype),
        alpha=numbers(module.alpha.clamp(0, 1)) if "synaptic" in kind else None,
        reset=_reset(kind, module, backend),
        recurrent=_recurrent(module, wire) if kind.startswith("r") else None,
        factor=None if bool((factor == 1).all()) else numbers(factor).astype(beta.dtype),
    )


def _reset(kind: str, module: Any, backend: NirBackend) -> str:
    """Return what a neuron does when it fires, where NIR can say it."""
    reset = ("subtract", "zero", "none")[int(module.reset_mechanism_val)]
    delayed = getattr(module, "reset_delay", True)
    if bool((module.threshold < 0).any()):
        raise UnsayableError("its threshold is below zero, so that it resets before it fires")
    if reset == "subtract":
        if backend.soft_resets == "zero":
            return "zero"
        if not delayed:
            raise UnsayableError(
                "it subtracts its threshold in the step in which it fires (reset_delay=False); NIR "
                "can say that with reset_delay=True, or with reset_mechanism='zero'"
            )
    if reset == "zero" and ((delayed and kind != "leaky") or kind == "rsynaptic"):
        raise UnsayableError(
            "it sets its membrane to zero in the step after it fires, whatever comes in then; a "
            "neuron of NIR does so in the step in which it fires: make it with reset_delay=False"
            if kind != "rsynaptic"
            else "its reset_mechanism is 'zero', which subtracts the membrane in each step"
        )
    return reset


def _recurrent(module: Any, wire: Wire) -> Any:
    """Return the node of the recurrent connection, which reads the spikes of the step before."""
    inner = module.recurrent
    if not module.all_to_all:
        weights = broadcast(module.V, wire.shape)
        is_vector = len(wire.shape) == 1
        # As snntorch reads it.
        return nir.Linear(weight=np.diag(weights)) if is_vector else nir.Scale(scale=weights)
    if isinstance(inner, torch.nn.Linear):
        return linear(inner.weight, inner.bias)
    return convolution(inner, wire.shape)


ROWS = [
    Lowering("nir", lower_neuron, layers=["leaky", "lapicque", "rleaky", "rsynaptic", "synaptic"])
]
