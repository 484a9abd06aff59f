"""The primitives of NIR that torch has no layer for, as modules of one time step.

Each call is one step of forward Euler of length ``dt``. A neuron keeps its state in buffers that no
state dict holds, from one call to the next; it starts at zero, and again where the shape of the
input changes. ``reset()`` sets it back, and ``forward`` takes it as an argument of its name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

DT = 1e-4
"""The length of a time step in seconds that snntorch and other libraries take for granted."""


def fire(above: Tensor) -> Tensor:
    """Return 1 where a value is positive, and 0 elsewhere.

    The step has no gradient of its own. It gets that of an arc tangent, as in snntorch.
    """
    soft = torch.atan(math.pi * above) / math.pi
    return (above > 0).to(above.dtype) + (soft - soft.detach())


class Primitive(nn.Module):
    """A primitive that computes each element by itself.

    Args:
        shape: the shape of its parameters: that of its input, without the batch.
        dt: the length of a time step, in seconds.
    """

    parameters_of: ClassVar[tuple[str, ...]]
    states_of: ClassVar[tuple[str, ...]] = ()
    # The buffers of the subclasses.
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
        """Return the state at the beginning of a step."""
        found = []
        for name, value in given.items():
            state: Tensor = getattr(self, name) if value is None else value
            found.append(state if state.shape == x.shape else torch.zeros_like(x))
        return found

    def _leak(self, x: Tensor, state: Tensor, tau: Any, gain: Any, rest: Any = None) -> Tensor:
        """Return the state after one step of ``tau * state' = (rest - state) + gain * x``.

        The factors are computed in double precision: with the time constants that snntorch writes,
        the one of the state is its beta to the last bit, and that of the input is 1.
        """
        rate = self.dt / tau.double()
        after: Tensor = (1 - rate).to(x.dtype) * state + (rate * gain.double()).to(x.dtype) * x
        return after if rest is None else after + (rate * rest.double()).to(x.dtype)

    def _reset(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the spikes at a potential, and the potential after them."""
        module: Any = self
        spikes = fire(v - module.v_threshold)
        return spikes, torch.where(spikes.detach() > 0, module.v_reset.to(v.dtype), v)


class LI(Primitive):
    """A leaky integrator: ``tau * v' = (v_leak - v) + r * x``. It gives ``v``."""

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
    """An integrator: ``v' = r * x``. It gives ``v``."""

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
    """A leaky integrator of a current: ``tau_syn * i' = -i + w_in * x``, and ``v`` integrates it.

    A step updates the current first, and the potential with the new current, as snntorch does.
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
    """A leaky integrator of a current that fires."""

    parameters_of = ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in")
    states_of = ("i", "v")

    def forward(self, x: Tensor, i: Tensor | None = None, v: Tensor | None = None) -> Tensor:
        """Return the spikes of one step."""
        current, start = self._start(x, i=i, v=v)
        self.i = self._leak(x, current, self.tau_syn, self.w_in)
        spikes, self.v = self._reset(self._leak(self.i, start, self.tau_mem, self.r, self.v_leak))
        return spikes


class Scale(Primitive):
    """A product with a factor for each element."""

    parameters_of = ("scale",)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled input."""
        return x * self.scale


class Threshold(Primitive):
    """1 where the input is above a threshold, and 0 elsewhere."""

    parameters_of = ("threshold",)

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes."""
        return fire(x - self.threshold)


class Delay(Primitive):
    """The input of ``delay`` seconds ago, rounded to steps; zero before the first.

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
    """An edge that closes a cycle: it gives the value of the step before, which starts at zero.

    Called without a value, it returns the one that it has; called with one, it keeps that.

    Args:
        shape: the shape of the value, without the batch.
    """

    last: Tensor

    def __init__(self, shape: Iterable[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("last", torch.zeros(0), persistent=False)

    def reset(self) -> None:
        """Forget the value."""
        self.last = torch.zeros_like(self.last)

    def forward(self, like: Tensor, last: Tensor | None = None) -> Tensor:
        """Return the value of the step before, or keep a new one.

        Args:
            like: a tensor with the batch of this step.
            last: the value to keep.
        """
        if last is not None:
            self.last = last
        elif self.last.shape != (like.shape[0], *self.shape):
            self.last = like.new_zeros((like.shape[0], *self.shape))
        return self.last


def reset(model: nn.Module) -> None:
    """Set the states of all primitives of NIR in a model back to zero."""
    for module in model.modules():
        if isinstance(module, Primitive | Feedback):
            module.reset()


PRIMITIVES: dict[str, type[Primitive]] = {
    f"nir_{cls.__name__.lower()}": cls
    for cls in (LI, LIF, I, IF, CubaLI, CubaLIF, Scale, Threshold, Delay)
}
"""The classes by the type of their layers."""
