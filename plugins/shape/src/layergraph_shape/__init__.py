"""Handlers for the layers of torch.nn that change the shape of a tensor."""

from __future__ import annotations

from torch import nn

from layergraph import hookimpl
from layergraph.layers import Layer


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes, each with its constructor arguments."""
    return [
        Layer(nn.ChannelShuffle),
        Layer(nn.Flatten, always=["start_dim", "end_dim"]),
        Layer(nn.PixelShuffle),
        Layer(nn.PixelUnshuffle),
        Layer(nn.Unflatten),
        Layer(nn.Upsample, always=["mode"]),
        Layer(nn.UpsamplingBilinear2d),
        Layer(nn.UpsamplingNearest2d),
    ]
