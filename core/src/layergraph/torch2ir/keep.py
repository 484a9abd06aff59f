"""What running a model changes, put back."""

from __future__ import annotations

import random
import sys
from types import TracebackType
from typing import Any, Self

import torch
from torch.nn.modules import module as hooks

from layergraph.errors import CaptureError
from layergraph.state import all_tensors
from layergraph.torch2ir.survey import Survey


class Kept:
    """Keeps the state of a model, and that of the random number generators, as they were.

    Args:
        survey: the model.
        device: where it runs; None if nothing tells.

    Raises:
        CaptureError: on leaving: the model drew random numbers that a graph cannot draw, or changed
            a parameter unseen.
    """

    def __init__(self, survey: Survey, device: torch.device | None) -> None:
        self._survey = survey
        self._device = device
        self._saved: dict[int, torch.Tensor] = {}

    def save(self, tensor: torch.Tensor) -> None:
        """Keep the value of a tensor of the model that is about to be changed."""
        if id(tensor) in self._versions and id(tensor) not in self._saved:
            self._saved[id(tensor)] = tensor.detach().clone()

    def __enter__(self) -> Self:
        if hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
            raise CaptureError(
                "there are global module hooks, which a graph cannot hold; remove them"
            )
        self._tensors: dict[int, tuple[str, torch.Tensor]] = {}
        self._versions: dict[int, int] = {}
        for key, tensor, _ in all_tensors(self._survey.root.module):
            self._tensors[id(tensor)] = key, tensor
            self._versions[id(tensor)] = version(tensor)
            if not isinstance(tensor, torch.nn.Parameter):
                self.save(tensor)
        self._generators = _generators(self._device)
        self._drawn = _foreign_generators()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._put_back_generators()
        unseen: list[str] = []
        with torch.no_grad():
            for identity, (key, tensor) in self._tensors.items():
                saved = self._saved.get(identity)
                # Not all kernels count up the version, as that of batch norm does not.
                if saved is not None and not _same_bits(tensor, saved):
                    tensor.copy_(saved)
                elif saved is None and version(tensor) != self._versions[identity]:
                    unseen.append(key)
        if error is not None:
            return
        if unseen:
            raise CaptureError(
                f"the model changes its parameter {unseen[0]!r} where capture does not see it; "
                "convert it without inputs, or give the module a handler"
            )
        if _foreign_generators() != self._drawn:
            _put_back_foreign(self._drawn)
            raise CaptureError(
                "the model draws random numbers from Python or numpy: a graph would have the same "
                "ones each time; draw them from torch"
            )

    def _put_back_generators(self) -> None:
        for device, state in self._generators.items():
            if device == "cpu":
                torch.set_rng_state(state)
            else:
                torch.get_device_module(device).set_rng_state(state, device)


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.is_meta or torch.equal(one, other)


def version(tensor: torch.Tensor) -> int:
    """How often a tensor was changed in place."""
    return -1 if tensor.is_inference() else tensor._version


def _generators(device: torch.device | None) -> dict[Any, torch.Tensor]:
    states: dict[Any, torch.Tensor] = {"cpu": torch.get_rng_state()}
    if device is not None and device.type not in ("cpu", "meta"):
        states[device] = torch.get_device_module(device).get_rng_state(device)
    return states


def _foreign_generators() -> tuple[Any, ...]:
    numpy = sys.modules.get("numpy")
    state = None
    if numpy is not None:
        kind, keys, *rest = numpy.random.get_state()
        state = kind, keys.tobytes(), *rest
    return random.getstate(), state


def _put_back_foreign(states: tuple[Any, ...]) -> None:
    own, foreign = states
    random.setstate(own)
    if foreign is not None:
        numpy = sys.modules["numpy"]
        kind, keys, *rest = foreign
        numpy.random.set_state((kind, numpy.frombuffer(keys, dtype="uint32"), *rest))
