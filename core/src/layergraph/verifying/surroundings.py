"""The surroundings of a model while it runs: random numbers, and the state of torch."""

from __future__ import annotations

import random
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def seed(number: int, devices: Collection[int]) -> None:
    """Seed all that models draw from.

    Args:
        number: the seed.
        devices: the numbers of the CUDA devices that are in use.
    """
    # Not torch.manual_seed, which seeds other devices too, and those that are not in use yet.
    torch.default_generator.manual_seed(number)
    for device in devices:
        torch.cuda.default_generators[device].manual_seed(number)
    random.seed(number)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number % 2**32)


def state(devices: Collection[int]) -> dict[str, object]:
    """The state that a call may leave changed, by name."""
    found: dict[str, object] = {
        "torch's random state": torch.default_generator.get_state(),
        "Python's random state": random.getstate(),
        "torch's settings": _settings(),
    }
    for device in devices:
        found[f"the random state of cuda:{device}"] = torch.cuda.get_rng_state(device)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        found["numpy's random state"] = repr(numpy.random.get_state())
    return found


def _settings() -> str:
    return ", ".join(
        f"{name} {value}"
        for name, value in {
            "default dtype": torch.get_default_dtype(),
            "gradients": torch.is_grad_enabled(),
            "inference mode": torch.is_inference_mode_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "autocast": torch.is_autocast_enabled("cpu"),
        }.items()
    )


@contextmanager
def restored() -> Iterator[None]:
    """Put back what a model leaves changed outside of itself."""
    numpy: Any = sys.modules.get("numpy")
    python, of_numpy = random.getstate(), numpy and numpy.random.get_state()
    dtype = torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    gradients = torch.is_grad_enabled()
    try:
        yield
    finally:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(of_numpy)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        torch.set_grad_enabled(gradients)


@contextmanager
def other_settings() -> Iterator[None]:
    """Another default dtype, no gradients, and deterministic algorithms where there are some."""
    with restored(), torch.no_grad():
        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32 if usual is torch.float64 else torch.float64)
        turned = not torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(turned, warn_only=True)
        yield
