"""Acme's own layers."""

from __future__ import annotations

import torch
from torch import nn

from acme_fixed_point.quantizers import RoundToFixedPoint
from layergraph import layer


@layer
class FixedPointLinear(nn.Linear):
    """A linear layer whose inputs, weights and outputs are fixed-point numbers.

    As in the hardware, half-way cases go to the even neighbour, and too large numbers saturate. You
    can train the layer: gradients pass through the rounding.

    Args:
        in_features: the size of the last dimension of the input.
        out_features: the size of the last dimension of the output.
        total_bits: the number of bits of each number, including its sign.
        frac_bits: the number of these bits after the point.
        bias: whether the layer adds a bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        total_bits: int,
        frac_bits: int,
        bias: bool = True,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        if not 0 <= frac_bits < total_bits:
            raise ValueError(f"{frac_bits} of {total_bits} bits cannot be after the point")
        self.total_bits = total_bits
        self.frac_bits = frac_bits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply and add rounded numbers, and round the result."""
        bias = None if self.bias is None else self._rounded(self.bias)
        exact = nn.functional.linear(self._rounded(x), self._rounded(self.weight), bias)
        return self._rounded(exact)

    def _rounded(self, x: torch.Tensor) -> torch.Tensor:
        rounded: torch.Tensor = RoundToFixedPoint.apply(x, self.total_bits, self.frac_bits)
        return rounded

    def extra_repr(self) -> str:
        """Return the text of nn.Linear, with the widths."""
        return f"{super().extra_repr()}, total_bits={self.total_bits}, frac_bits={self.frac_bits}"


# With the type of torch's layer, this row overrides the built-in one when layergraph rebuilds a
# model.
@layer(type="linear", always=["bias"], derived=["largest"])
class ObservedLinear(nn.Linear):
    """An ``nn.Linear`` that records the largest magnitude of its numbers.

    Attributes:
        largest: the largest magnitude of its weights, inputs and outputs so far.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.largest = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the output, and update ``largest``."""
        given = super().forward(x)
        seen = (x, given, *self.parameters())
        self.largest = max(self.largest, *(each.abs().max().item() for each in seen))
        return given
