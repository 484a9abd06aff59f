"""Handlers for the convolution layers of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import hookimpl
from layergraph.layers import Layer

_ALWAYS = ["stride", "padding", "dilation", "groups", "bias"]


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes, each with its constructor arguments."""
    return [
        *(Layer(cls, always=_ALWAYS) for cls in (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
        *(
            Layer(cls, always=[*_ALWAYS, "output_padding"])
            for cls in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
        ),
        Layer(nn.Fold, always=["stride", "padding", "dilation"]),
        Layer(nn.Unfold, always=["stride", "padding", "dilation"]),
    ]
