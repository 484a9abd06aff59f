"""Handlers for the normalization layers of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import Implementation, hookimpl
from layergraph.layers import Layer, LayerTable

_SAID = ["eps", "momentum", "affine", "track_running_stats"]


def _bias(module: nn.Module) -> bool:
    """What the argument was: a layer that is not affine has no bias either way."""
    return not module.affine or module.bias is not None


_BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

TABLE = LayerTable(
    [
        *(
            # A process group is no plain value; a layer that has one is traced through.
            Layer(cls, always=_SAID, never=["process_group"], readers={"bias": _bias})
            for cls in (*_BATCH, *_INSTANCE)
        ),
        Layer(nn.CrossMapLRN2d, always=["alpha", "beta", "k"]),
        Layer(nn.GroupNorm, always=["eps", "affine"], readers={"bias": _bias}),
        Layer(
            nn.LayerNorm,
            always=["eps", "elementwise_affine", "bias"],
            readers={
                "bias": lambda module: not module.elementwise_affine or module.bias is not None
            },
        ),
        Layer(nn.LocalResponseNorm, always=["alpha", "beta", "k"]),
        Layer(nn.RMSNorm, always=["eps", "elementwise_affine"]),
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
