"""Handlers for the convolution layers of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import hookimpl
from layergraph.layers import Layer

_SAID = ["stride", "padding", "dilation", "groups", "bias"]


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes of torch.nn, each with what it says of itself."""
    return [
        *(Layer(cls, always=_SAID) for cls in (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
        *(
            Layer(cls, always=[*_SAID, "output_padding"])
            for cls in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
        ),
        Layer(nn.Fold, always=["stride", "padding", "dilation"]),
        Layer(nn.Unfold, always=["stride", "padding", "dilation"]),
    ]
