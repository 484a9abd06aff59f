"""Acme's own layers."""

from __future__ import annotations

import torch
from torch import nn

from acme_fixed_point.quantizers import RoundToFixedPoint
from layergraph import layer


@layer
class FixedPointLinear(nn.Linear):
    """A linear layer of which inputs, weights and outputs are fixed-point numbers.

    Half-way cases go to the even neighbour, as in the hardware, and what is too large saturates. So
    that the layer can be trained, gradients pass the rounding.

    Args:
        in_features: the size of the last dimension of what it is given.
        out_features: the size of the last dimension of what it gives.
        total_bits: the width of each number, its sign included.
        frac_bits: how many of these are after the point.
        bias: whether it adds a bias.
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
        """Tell the widths too."""
        return f"{super().extra_repr()}, total_bits={self.total_bits}, frac_bits={self.frac_bits}"


# Of torch's own type: this row takes the place of the built-in one, and models are rebuilt with it.
@layer(type="linear", always=["bias"], derived=["largest"])
class ObservedLinear(nn.Linear):
    """Computes what ``nn.Linear`` does, and remembers the largest number that it had to do with.

    Attributes:
        largest: the largest magnitude of its weights, and of what it was given and gave.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.largest = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute, and look."""
        given = super().forward(x)
        seen = (x, given, *self.parameters())
        self.largest = max(self.largest, *(each.abs().max().item() for each in seen))
        return given
