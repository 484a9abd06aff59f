"""Generators of random numbers that a graph makes in each call."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import handle_torch_function

from layergraph.control_flow.choices import is_recorded

NAMES = ("generator", "seeded")
"""The functions here that may be nodes."""


def generator(device: Any = "cpu") -> torch.Generator:
    """Return a new generator of random numbers.

    Args:
        device: its device.

    Example:
        >>> from layergraph.control_flow.generators import generator, seeded
        >>> import torch
        >>> one, other = seeded(generator(), 3), seeded(generator(), 3)
        >>> torch.equal(torch.rand(2, generator=one), torch.rand(2, generator=other))
        True
    """
    if is_recorded(device):
        made: torch.Generator = handle_torch_function(generator, (device,), device)
        return made
    return torch.Generator(device)


def seeded(generator: torch.Generator, seed: int) -> torch.Generator:
    """Return a generator, after it has been given a seed: see :func:`generator`.

    Args:
        generator: the generator.
        seed: the seed.
    """
    if is_recorded(generator):
        same: torch.Generator = handle_torch_function(seeded, (generator,), generator, seed)
        return same
    return generator.manual_seed(seed)
