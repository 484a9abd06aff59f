"""Handlers for the normalization layers of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import hookimpl
from layergraph.layers import Layer
from layergraph.torch_versions import has

_ALWAYS = ["eps", "momentum", "affine", "track_running_stats"]


def _bias(module: nn.Module) -> bool:
    """Return the argument ``bias``; True, its default, if the layer is not affine."""
    return not module.affine or module.bias is not None


_READERS = {"bias": _bias} if has("norm_bias") else {}
_BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes, each with its constructor arguments."""
    return [
        *(
            # The row declines a layer with a process group, because a group is not a plain value.
            Layer(cls, always=_ALWAYS, never=["process_group"], readers=_READERS)
            for cls in (*_BATCH, *_INSTANCE)
        ),
        Layer(nn.CrossMapLRN2d, always=["alpha", "beta", "k"]),
        Layer(nn.GroupNorm, always=["eps", "affine"], readers=_READERS),
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
