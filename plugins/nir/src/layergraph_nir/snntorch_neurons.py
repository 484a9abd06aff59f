"""Handlers for the neurons of snntorch.

A neuron of snntorch computes ``mem = beta * mem + input``. A LIF of NIR computes a forward Euler
step of ``tau * v' = (v_leak - v) + r * input``. Both are equal for ``tau = dt / (1 - beta)`` and
``r = tau / dt``, which snntorch writes too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nir  # type: ignore[import-untyped]
import numpy as np
import torch

from layergraph.hook_types.lowerings import Lowering
from layergraph_nir.graph import GraphBuilder, NeuronState, Signal, UnsupportedError
from layergraph_nir.torch_layers import broadcast, convolution, linear, take_states
from layergraph_nir.writing import NirBackend

if TYPE_CHECKING:
    from layergraph_backends import Step


@dataclass
class Neuron:
    """The parameters of a neuron, as arrays with a number for each element of its input.

    Attributes:
        signal: its input.
        dt: the length of a time step, in seconds.
        beta: the decay factor of the membrane for one step.
        gain: the factor of the input.
        threshold: the membrane potential above which it fires.
        alpha: the decay factor of the synaptic current for one step; None: it has no current.
        reset: the reset mechanism: ``subtract``, ``zero`` or ``none``.
        recurrent: the node of the recurrent connection; None: it has none.
        factor: the factor of the spikes; None: 1.
    """

    signal: Signal
    dt: float
    beta: Any
    gain: Any
    threshold: Any
    alpha: Any
    reset: str
    recurrent: Any
    factor: Any

    def time(self, decay: Any) -> Any:
        """Return the time constant for a decay factor."""
        rate = 1 - decay.astype(np.float64)
        if (rate <= 0).any():
            raise UnsupportedError(
                "some of its elements decay, and others do not; NIR has no primitive for a mix"
            )
        return (self.dt / rate).astype(decay.dtype)

    def resistance(self, decay: Any, gain: Any) -> Any:
        """Return the resistance for a decay factor and a factor of the input."""
        return (gain.astype(np.float64) / (1 - decay.astype(np.float64))).astype(decay.dtype)

    def integrator(self, decay: Any, gain: Any) -> Any:
        """Return the LI, or the I if nothing decays."""
        if (decay == 1).all():
            return nir.I(r=(gain.astype(np.float64) / self.dt).astype(decay.dtype))
        resistance = self.resistance(decay, gain)
        return nir.LI(tau=self.time(decay), r=resistance, v_leak=np.zeros_like(decay))

    def firing(self) -> Any:
        """Return the neuron that resets to zero: a CubaLIF, LIF or IF."""
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
        """Return True if a single node of NIR describes the neuron."""
        return self.reset == "zero" and self.recurrent is None and self.factor is None

    def build(self, graph: GraphBuilder) -> None:
        """Add the nodes of the neuron, its input and its output to an empty graph."""
        shape = self.signal.shape
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

    def _build_parts(self, graph: GraphBuilder, source: Signal) -> tuple[str, Signal]:
        shape, entry = self.signal.shape, "mem"
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
    """Convert a neuron of snntorch to a node of NIR, or to a nested graph."""
    module: Any = step.module
    signal = backend.signal(step, 0, "input_")
    take_states(step, backend, 1)
    for name in ("inhibition", "state_quant"):
        if getattr(module, name):
            raise UnsupportedError(f"its {name} is set; NIR has no primitive for that")
    neuron = _neuron(step.kind, module, signal, backend)
    if neuron.is_one_node:
        result = backend.add(step, neuron.firing(), signal, keeps_state=True)
    else:
        graph = GraphBuilder()
        neuron.build(graph)
        result = backend.add(step, graph.finished(), signal, keeps_state=True)
    if module.init_hidden and not module.output:
        return result
    states = 2 if neuron.alpha is not None else 1
    return (result, *(NeuronState() for _ in range(states)))


def _neuron(kind: str, module: Any, signal: Signal, backend: NirBackend) -> Neuron:
    def numbers(tensor: torch.Tensor) -> Any:
        return broadcast(tensor, signal.shape)

    if kind == "lapicque":
        # R and C may be integers.
        dtype = torch.promote_types(torch.float32, module.R.dtype)
        rate = module.time_step.double() / (module.R.double() * module.C.double())
        beta = numbers((1 - rate).to(dtype))
        gain = numbers((rate * module.R.double()).to(dtype))
    else:
        beta = numbers(module.beta.clamp(0, 1))
        gain = np.ones_like(beta)
    factor = module.graded_spikes_factor
    return Neuron(
        signal=signal,
        dt=backend.dt,
        beta=beta,
        gain=gain,
        threshold=numbers(module.threshold).astype(beta.dtype),
        alpha=numbers(module.alpha.clamp(0, 1)) if "synaptic" in kind else None,
        reset=_reset(kind, module, backend),
        recurrent=_recurrent(module, signal) if kind.startswith("r") else None,
        factor=None if bool((factor == 1).all()) else numbers(factor).astype(beta.dtype),
    )


def _reset(kind: str, module: Any, backend: NirBackend) -> str:
    """Return the reset mechanism of a neuron.

    Raises:
        UnsupportedError: NIR cannot describe it.
    """
    reset = ("subtract", "zero", "none")[int(module.reset_mechanism_val)]
    delayed = getattr(module, "reset_delay", True)
    if bool((module.threshold < 0).any()):
        raise UnsupportedError("its threshold is below zero, so that it resets before it fires")
    if reset == "subtract":
        if backend.soft_resets == "zero":
            return "zero"
        if not delayed:
            raise UnsupportedError(
                "it subtracts its threshold in the step in which it fires (reset_delay=False); NIR "
                "supports it with reset_delay=True, or with reset_mechanism='zero'"
            )
    if reset == "zero" and ((delayed and kind != "leaky") or kind == "rsynaptic"):
        raise UnsupportedError(
            "it sets its membrane to zero in the step after it fires, and drops the input of that "
            "step; a neuron of NIR resets in the step in which it fires: use reset_delay=False"
            if kind != "rsynaptic"
            else "its reset_mechanism is 'zero', which subtracts the membrane in each step"
        )
    return reset


def _recurrent(module: Any, signal: Signal) -> Any:
    """Return the node of the recurrent connection, which reads the spikes of the previous step."""
    inner = module.recurrent
    if not module.all_to_all:
        weights = broadcast(module.V, signal.shape)
        is_vector = len(signal.shape) == 1
        # snntorch expects this form.
        return nir.Linear(weight=np.diag(weights)) if is_vector else nir.Scale(scale=weights)
    if isinstance(inner, torch.nn.Linear):
        return linear(inner.weight, inner.bias)
    return convolution(inner, signal.shape)


ROWS = [
    Lowering("nir", lower_neuron, layers=["leaky", "lapicque", "rleaky", "rsynaptic", "synaptic"])
]
