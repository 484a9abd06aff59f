"""Handlers for the pooling layers of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import hookimpl
from layergraph.layers import Layer

_WINDOWS = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.MaxUnpool1d,
    nn.MaxUnpool2d,
    nn.MaxUnpool3d,
)
_OTHERS = (
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
)


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes, each with its constructor arguments."""
    return [
        *(Layer(cls, always=["stride", "padding"]) for cls in _WINDOWS),
        *(Layer(cls, always=["stride"]) for cls in (nn.LPPool1d, nn.LPPool2d, nn.LPPool3d)),
        # Only torch's tests pass random samples. The row declines a layer with them.
        *(Layer(cls, never=["_random_samples"]) for cls in _OTHERS),
    ]
