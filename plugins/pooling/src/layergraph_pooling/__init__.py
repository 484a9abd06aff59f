"""Handlers for the pooling layers of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import Implementation, hookimpl
from layergraph.layers import Layer, LayerTable

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

TABLE = LayerTable(
    [
        *(Layer(cls, always=["stride", "padding"]) for cls in _WINDOWS),
        *(Layer(cls, always=["stride"]) for cls in (nn.LPPool1d, nn.LPPool2d, nn.LPPool3d)),
        # The samples are for tests of torch; a layer that has them is traced through.
        *(Layer(cls, never=["_random_samples"]) for cls in _OTHERS),
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
