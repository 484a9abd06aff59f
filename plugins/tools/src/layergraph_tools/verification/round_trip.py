"""The two models that all checks share, and calls of both with equal inputs and seeds."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import nn

from layergraph.api import to_ir, to_torch
from layergraph.capturing import Values
from layergraph.errors import first_line
from layergraph.ir import Ir
from layergraph_tools.verification.comparison import compare
from layergraph_tools.verification.inputs import Inputs, copied, drawn
from layergraph_tools.verification.subject import Subject

# Models that seed themselves use small numbers.
_FIRST_SEED = 0x5EED_1DEA


class SkippedError(Exception):
    """A check has nothing to compare."""


class Call(NamedTuple):
    """A call of the original: its inputs, its seed, and its observations or its error."""

    inputs: Inputs
    seed: int
    seen: dict[str, object] | Exception


class RoundTrip:
    """A model, its IR and the model rebuilt from it.

    Args:
        model: the user's model; it never runs.
        inputs: the user's inputs, if any.
        values: as for :func:`layergraph.to_ir`.
        devices: the numbers of the CUDA devices whose random state the model may use.

    Attributes:
        original: a copy of the model, which runs instead; None before the capture.
        rebuilt: the rebuilt model; None before the build.
        ir: the IR; None before the capture.
        read: the same IR, read from its dict form.
        passed: for each check that passed in the course of another one, its detail.
        last: the last call of the original; its tensors are valid until the next call.
        without: the IR of a capture without inputs; None if it equals ``ir`` or is impossible.
        variables: the names of the environment variables that the model reads.
        device: the device of the rebuilt model; None if the original is on several.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs | None,
        values: Values,
        devices: Collection[int],
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.values = values
        self.devices = devices
        self.original: Subject | None = None
        self.rebuilt: Subject | None = None
        self.ir: Ir | None = None
        self.read: Ir | None = None
        self.passed: dict[str, str] = {}
        self.last: Call | None = None
        self.without: Ir | None = None
        self.variables: set[str] = set()
        self.device: torch.device | None = None
        self._generator = torch.Generator().manual_seed(_FIRST_SEED)
        self._seeds = itertools.count(_FIRST_SEED)

    # --- results of earlier checks ---

    def captured(self) -> Ir:
        """Return the IR, or skip the check if there is none."""
        if self.ir is None:
            raise SkippedError("there is no IR")
        return self.ir

    def both(self) -> tuple[Subject, Subject]:
        """Return the original and the rebuilt model, or skip the check if one is missing."""
        if self.original is None or self.rebuilt is None:
            raise SkippedError("there is no rebuilt model")
        return self.original, self.rebuilt

    def given(self) -> Inputs:
        """Return the inputs that the user gave, or skip the check."""
        self.both()
        if self.inputs is None:
            raise SkippedError("no inputs were given")
        return self.inputs

    # --- conversions ---

    def capture(self, original: Subject) -> Ir:
        """Capture a copy of the model, on copies of the given inputs if there are any."""
        args, kwargs = (None, None) if self.inputs is None else copied(self.inputs)
        return to_ir(original.module, args, kwargs, values=self.values)

    def trace(self) -> Ir:
        """Capture the copy of the model without inputs."""
        return to_ir(self.both()[0].module)

    def build(self, ir: Ir, state: dict[str, Any] | None = None) -> Subject:
        """Build a model from an IR, with the model's state dict or another one."""
        state = self.model.state_dict() if state is None else state
        return Subject(to_torch(ir, state, self.device), self.model, self.devices)

    # --- calls ---

    def draw(self, given: torch.Tensor) -> torch.Tensor:
        """Return a random tensor like the given one."""
        return drawn(given, self._generator)

    def seed(self) -> int:
        """Return a new seed, which no call has used."""
        return next(self._seeds)

    def call(self, inputs: Inputs, **how: Any) -> Call:
        """Call the original; ``how`` is as for :meth:`Subject.seen`."""
        original, _ = self.both()
        self.last = None
        number = self.seed()
        try:
            seen: dict[str, object] | Exception = original.seen(inputs, number, **how)
        except Exception as error:
            seen = error
        self.last = Call(inputs, number, seen)
        return self.last

    def compare_calls(self, inputs: Inputs, **how: Any) -> str:
        """Call both models and compare; ``how`` is as for :meth:`Subject.seen`."""
        _, rebuilt = self.both()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call = self.call(inputs, **how)
            if isinstance(call.seen, Exception):
                refusal = f"the original refuses: {described(call.seen)}"
                raise SkippedError(refusal) from call.seen
            return compare(call.seen, rebuilt.seen(inputs, call.seed, **how))

    def accepts(self, subject: Subject, inputs: Inputs) -> bool:
        """Return whether a model runs on inputs without an error."""
        try:
            subject.seen(inputs, self.seed())
        except Exception:
            return False
        return True


def described(error: Exception) -> str:
    """Return the type of an error and its first line."""
    return f"{type(error).__name__}: {first_line(error)}"
