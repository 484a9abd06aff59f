"""Layers, functions and example inputs of torchvision, which is imported when it is needed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from layergraph import Implementation, hookimpl

from . import layers


@hookimpl(trylast=True)
def functions() -> Collection[str]:
    """Name the functions that are no compositions of torch's, or cannot be traced through.

    The attention of the Swin transformers shifts and pads by the size of what it is given;
    torchvision itself declares it a leaf for torch.fx, with ``torch.fx.wrap``. The others are
    kernels of torchvision.
    """
    return [
        "torchvision.models.swin_transformer.shifted_window_attention",
        "torchvision.ops.boxes.nms",
        "torchvision.ops.deform_conv.deform_conv2d",
        "torchvision.ops.ps_roi_align.ps_roi_align",
        "torchvision.ops.ps_roi_pool.ps_roi_pool",
        "torchvision.ops.roi_align.roi_align",
        "torchvision.ops.roi_pool.roi_pool",
    ]


# The hook `layers` would list classes, and so import torchvision at the first conversion of all.


@hookimpl(trylast=True)
def torch_to_ir(module: nn.Module) -> Implementation | None:
    """Answer for the layers of torchvision.ops that cannot be traced through, or are kernels."""
    return layers.table().to_ir(module) if layers.is_class(type(module)) else None


@hookimpl(trylast=True)
def ir_to_torch(implementation: Implementation) -> nn.Module | None:
    """Answer for their types."""
    return layers.table().to_torch(implementation) if layers.is_type(implementation.type) else None


@hookimpl(trylast=True)
def example_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Answer for the models of torchvision: pictures, videos, lists or pairs of pictures."""
    from .inputs import inputs_of  # which no conversion needs

    args = inputs_of(model)
    return None if args is None else (args, {})
