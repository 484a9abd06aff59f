"""A handler that is wrong by next to nothing: checks have to notice."""

from __future__ import annotations

import torch
from torch import nn

from layergraph import Implementation, hookimpl


class FaultyLinear(nn.Linear):
    """Off by the last bit."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Compute almost what ``nn.Linear`` does."""
        return torch.nextafter(super().forward(given), torch.tensor(torch.inf))


@hookimpl(tryfirst=True)
def ir_to_torch(implementation: Implementation) -> nn.Module | None:
    """Answer for the type of the built-in handler."""
    if implementation.type != "linear":
        return None
    return FaultyLinear(**implementation.data)
