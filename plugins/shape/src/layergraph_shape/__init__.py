"""Handlers for the layers of torch.nn that change the shape of a tensor."""

from __future__ import annotations

from torch import nn

from layergraph import Implementation, hookimpl
from layergraph.layers import Layer, LayerTable

TABLE = LayerTable(
    [
        Layer(nn.ChannelShuffle),
        Layer(nn.Flatten, always=["start_dim", "end_dim"]),
        Layer(nn.PixelShuffle),
        Layer(nn.PixelUnshuffle),
        Layer(nn.Unflatten),
        Layer(nn.Upsample, always=["mode"]),
        Layer(nn.UpsamplingBilinear2d),
        Layer(nn.UpsamplingNearest2d),
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
