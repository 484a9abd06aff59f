"""Handlers for the linear layers of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import Implementation, hookimpl
from layergraph.layers import Layer, LayerTable

TABLE = LayerTable(
    [
        Layer(nn.Linear, always=["bias"]),
        Layer(nn.Bilinear, always=["bias"]),
        Layer(nn.Identity),
    ]
)


@hookimpl(trylast=True)
def torch_to_ir(module: nn.Module) -> Implementation | None:
    """Answer for the classes of the table."""
    return TABLE.to_ir(module)


@hookimpl(trylast=True)
def ir_to_torch(implementation: Implementation) -> nn.Module | None:
    """Answer for the types of the table."""
    return TABLE.to_torch(implementation)
