"""Layers, functions and example inputs of torchvision, which is imported on first use."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from layergraph import Implementation, hookimpl

from . import layers


@hookimpl(trylast=True)
def functions() -> Collection[str]:
    """List the functions that a capture cannot trace.

    The attention of Swin transformers shifts and pads by the size of its input; torchvision marks
    it as a leaf with ``torch.fx.wrap`` too. The others are kernels of torchvision.
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


# Not the hook `layers`: to list the classes, it would import torchvision at the first conversion.


@hookimpl(trylast=True)
def torch_to_ir(module: nn.Module) -> Implementation | None:
    """Describe the layers of torchvision.ops that are kernels, or that a capture cannot trace."""
    return layers.table().to_ir(module) if layers.is_class(type(module)) else None


@hookimpl(trylast=True)
def ir_to_torch(implementation: Implementation) -> nn.Module | None:
    """Make the layers that :func:`torch_to_ir` describes."""
    return layers.table().to_torch(implementation) if layers.is_type(implementation.type) else None


@hookimpl(trylast=True)
def example_inputs(model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Return images, videos, lists or pairs of images for a model of torchvision."""
    from .inputs import inputs_of  # imported here, because no conversion needs it

    args = inputs_of(model)
    return None if args is None else (args, {})
