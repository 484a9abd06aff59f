"""Quantizers with straight-through gradients: classes of autograd.Function that files can hold.

The gradient of rounding is zero almost everywhere, so a model with it would not learn. A
straight-through gradient is that of the identity for numbers in the range of the format.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch.autograd import Function

from layergraph import hookimpl


class Binarize(Function):
    """Return -1 or 1. The gradient passes where the magnitude is at most 1."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        """Compute the signs; that of zero is 1."""
        ctx.save_for_backward(x.abs() <= 1)
        return torch.where(x < 0, -1.0, 1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        """Pass the gradient."""
        (passes,) = ctx.saved_tensors
        return grad * passes


class Ternarize(Function):
    """Return -1, 0 or 1: 0 where the magnitude is at most a threshold."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, threshold: float) -> torch.Tensor:
        """Compute the signs of the numbers beyond the threshold."""
        ctx.save_for_backward(x.abs() <= 1)
        return x.sign() * (x.abs() > threshold)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Pass the gradient where the magnitude is at most 1."""
        (passes,) = ctx.saved_tensors
        return grad * passes, None


class RoundToFixedPoint(Function):
    """Round to fixed-point numbers, half-way cases to the even neighbour.

    A number that is too large saturates, and passes no gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, total_bits: int, frac_bits: int) -> torch.Tensor:
        """Round, with a sign among the total bits."""
        scale = 2.0**frac_bits
        largest = 2 ** (total_bits - 1)
        steps = (x * scale).round()
        ctx.save_for_backward((steps >= -largest) & (steps < largest))
        return steps.clamp(-largest, largest - 1) / scale

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Pass the gradient of the numbers in range."""
        (passes,) = ctx.saved_tensors
        return grad * passes, None, None


@hookimpl
def functions() -> Collection[str]:
    """List the quantizers, so that files may hold them."""
    return [f"{__name__}.{each.__name__}" for each in (Binarize, Ternarize, RoundToFixedPoint)]
