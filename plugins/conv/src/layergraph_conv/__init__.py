"""Handlers for the convolution layers of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import Implementation, hookimpl
from layergraph.layers import Layer, LayerTable

_SAID = ["stride", "padding", "dilation", "groups", "bias"]

TABLE = LayerTable(
    [
        *(Layer(cls, always=_SAID) for cls in (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
        *(
            Layer(cls, always=[*_SAID, "output_padding"])
            for cls in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
        ),
        Layer(nn.Fold, always=["stride", "padding", "dilation"]),
        Layer(nn.Unfold, always=["stride", "padding", "dilation"]),
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
