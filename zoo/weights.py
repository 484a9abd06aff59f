"""Weights that make a difference."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def enliven(model: nn.Module) -> None:
    """Disturb what is initialized to one value throughout, such as biases, scales and statistics.

    A head of zeros would make all outputs equal, whatever the model before it did, and a scale of
    one looks the same wherever it is applied.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point() and _is_constant(parameter):
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.add_(torch.rand_like(buffer), alpha=0.1)


def _is_constant(tensor: torch.Tensor) -> bool:
    flat = tensor.flatten()
    # The first few settle it for nearly all, and some have hundreds of millions.
    return flat.numel() > 0 and all(
        bool((part == flat[0]).all()) for part in (flat[:64], flat[64:])
    )
