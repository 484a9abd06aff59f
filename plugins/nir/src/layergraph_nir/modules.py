"""Modules for the primitives of NIR that torch lacks; each call computes one time step.

A call is one forward Euler step of length ``dt``. A neuron keeps its state between calls in
non-persistent buffers. The state starts at zero, and returns to zero if the shape of the input
changes or if you call ``reset()``. ``forward`` also accepts the state as a keyword argument.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

DT = 1e-4
"""The default length of a time step in seconds, as in snntorch."""


def fire(above: Tensor) -> Tensor:
    """Return 1 where a value is positive, and 0 elsewhere.

    The gradient of the step is zero, so the backward pass uses that of an arc tangent, as in
    snntorch.
    """
    soft = torch.atan(math.pi * above) / math.pi
    return (above > 0).to(above.dtype) + (soft - soft.detach())


class Primitive(nn.Module):
    """The base class of elementwise primitives.

    Args:
        shape: the shape of its parameters, which is the shape of its input without the batch.
        dt: the length of a time step, in seconds.
    """

    parameters_of: ClassVar[tuple[str, ...]]
    states_of: ClassVar[tuple[str, ...]] = ()
    # The subclasses register these buffers.
    delay: Tensor
    past: Tensor
    r: Tensor
    scale: Tensor
    threshold: Tensor

    def __init__(self, shape: Iterable[int] = (), dt: float = DT) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.dt = dt
        for name in self.parameters_of:
            self.register_buffer(name, torch.ones(self.shape))
        for name in self.states_of:
            self.register_buffer(name, torch.zeros(0), persistent=False)

    def reset(self) -> None:
        """Set the state back to zero."""
        for name in self.states_of:
            setattr(self, name, torch.zeros_like(getattr(self, name)))

    def extra_repr(self) -> str:
        """Return the arguments of the constructor, for print."""
        return f"{self.shape}, dt={self.dt}"

    def _start(self, x: Tensor, **given: Tensor | None) -> list[Tensor]:
        """Return the given or stored states, or zeros where the shape of the input differs."""
        found = []
        for name, value in given.items():
            state: Tensor = getattr(self, name) if value is None else value
            found.append(state if state.shape == x.shape else torch.zeros_like(x))
        return found

    def _leak(self, x: Tensor, state: Tensor, tau: Any, gain: Any, rest: Any = None) -> Tensor:
        """Return the state after one step of ``tau * state' = (rest - state) + gain * x``.

        We compute the factors in double precision. So, with the time constants that snntorch
        writes, the factor of the state is exactly its beta, and the factor of the input is 1.
        """
        rate = self.dt / tau.double()
        after: Tensor = (1 - rate).to(x.dtype) * state + (rate * gain.double()).to(x.dtype) * x
        return after if rest is None else after + (rate * rest.double()).to(x.dtype)

    def _reset(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the spikes and the potential after the reset."""
        module: Any = self
        spikes = fire(v - module.v_threshold)
        return spikes, torch.where(spikes.detach() > 0, module.v_reset.to(v.dtype), v)


class LI(Primitive):
    """A leaky integrator: ``tau * v' = (v_leak - v) + r * x``. It returns ``v``."""

    parameters_of = ("tau", "r", "v_leak")
    states_of = ("v",)

    def forward(self, x: Tensor, v: Tensor | None = None) -> Tensor:
        """Return the potential after one step."""
        (start,) = self._start(x, v=v)
        self.v = self._leak(x, start, self.tau, self.r, self.v_leak)
        return self.v


class LIF(Primitive):
    """A leaky integrator that fires: above ``v_threshold``, ``v`` becomes ``v_reset``."""

    parameters_of = ("tau", "r", "v_leak", "v_threshold", "v_reset")
    states_of = ("v",)

    def forward(self, x: Tensor, v: Tensor | None = None) -> Tensor:
        """Return the spikes of one step."""
        (start,) = self._start(x, v=v)
        spikes, self.v = self._reset(self._leak(x, start, self.tau, self.r, self.v_leak))
        return spikes


class I(Primitive):  # noqa: E742 the name in NIR
    """An integrator: ``v' = r * x``. It returns ``v``."""

    parameters_of = ("r",)
    states_of = ("v",)

    def forward(self, x: Tensor, v: Tensor | None = None) -> Tensor:
        """Return the potential after one step."""
        (start,) = self._start(x, v=v)
        self.v = start + (self.dt * self.r.double()).to(x.dtype) * x
        return self.v


class IF(Primitive):
    """An integrator that fires: above ``v_threshold``, ``v`` becomes ``v_reset``."""

    parameters_of = ("r", "v_threshold", "v_reset")
    states_of = ("v",)

    def forward(self, x: Tensor, v: Tensor | None = None) -> Tensor:
        """Return the spikes of one step."""
        (start,) = self._start(x, v=v)
        spikes, self.v = self._reset(start + (self.dt * self.r.double()).to(x.dtype) * x)
        return spikes


class CubaLI(Primitive):
    """A leaky integrator of a current: ``tau_syn * i' = -i + w_in * x``, which ``v`` integrates.

    A step updates the current first, and then the potential with the new current, as in snntorch.
    """

    parameters_of = ("tau_syn", "tau_mem", "r", "v_leak", "w_in")
    states_of = ("i", "v")

    def forward(self, x: Tensor, i: Tensor | None = None, v: Tensor | None = None) -> Tensor:
        """Return the potential after one step."""
        current, start = self._start(x, i=i, v=v)
        self.i = self._leak(x, current, self.tau_syn, self.w_in)
        self.v = self._leak(self.i, start, self.tau_mem, self.r, self.v_leak)
        return self.v


class CubaLIF(Primitive):
    """A CubaLI that fires: above ``v_threshold``, ``v`` becomes ``v_reset``."""

    parameters_of = ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in")
    states_of = ("i", "v")

    def forward(self, x: Tensor, i: Tensor | None = None, v: Tensor | None = None) -> Tensor:
        """Return the spikes of one step."""
        current, start = self._start(x, i=i, v=v)
        self.i = self._leak(x, current, self.tau_syn, self.w_in)
        spikes, self.v = self._reset(self._leak(self.i, start, self.tau_mem, self.r, self.v_leak))
        return spikes


class Scale(Primitive):
    """A product of the input and ``scale``."""

    parameters_of = ("scale",)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled input."""
        return x * self.scale


class Threshold(Primitive):
    """A step function: 1 where the input is above ``threshold``, and 0 elsewhere."""

    parameters_of = ("threshold",)

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes."""
        return fire(x - self.threshold)


class Delay(Primitive):
    """A delay of ``delay`` seconds, rounded to steps; it returns zeros before the first input.

    Args:
        shape: the shape of the delays.
        dt: the length of a time step, in seconds.
        steps: the longest delay in steps.
    """

    parameters_of = ("delay",)
    states_of = ("past",)

    def __init__(self, shape: Iterable[int] = (), dt: float = DT, steps: int = 1) -> None:
        super().__init__(shape, dt)
        self.steps = steps

    def forward(self, x: Tensor, past: Tensor | None = None) -> Tensor:
        """Return the delayed input."""
        steps = torch.round(self.delay.double() / self.dt).long().clamp(0, self.steps)
        known = self.past if past is None else past
        if known.shape != (self.steps + 1, *x.shape):
            known = x.new_zeros((self.steps + 1, *x.shape))
        self.past = torch.cat([x[None], known[:-1]])
        return self.past.gather(0, steps.expand(1, *x.shape))[0]


class Feedback(nn.Module):
    """An edge that closes a cycle and carries the value of the previous time step.

    A call with a value stores it. A call without one returns the stored value, at first zero.

    Args:
        shape: the shape of the value, without the batch.
    """

    last: Tensor

    def __init__(self, shape: Iterable[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("last", torch.zeros(0), persistent=False)

    def reset(self) -> None:
        """Set the stored value to zero."""
        self.last = torch.zeros_like(self.last)

    def forward(self, like: Tensor, last: Tensor | None = None) -> Tensor:
        """Return the value of the previous time step, or store a new one and return it.

        Args:
            like: a tensor whose first dimension is the batch.
            last: the value to store; None: return the stored value.
        """
        if last is not None:
            self.last = last
        elif self.last.shape != (like.shape[0], *self.shape):
            self.last = like.new_zeros((like.shape[0], *self.shape))
        return self.last


def reset(model: nn.Module) -> None:
    """Set the states of all modules of this package in a model to zero."""
    for module in model.modules():
        if isinstance(module, Primitive | Feedback):
            module.reset()


PRIMITIVES: dict[str, type[Primitive]] = {
    f"nir_{cls.__name__.lower()}": cls
    for cls in (LI, LIF, I, IF, CubaLI, CubaLIF, Scale, Threshold, Delay)
}
"""The classes, by type of the layer."""
