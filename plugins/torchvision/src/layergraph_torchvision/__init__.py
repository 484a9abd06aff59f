"""Names for the functions of torchvision that cannot be traced through without inputs."""

from __future__ import annotations

from collections.abc import Collection

from layergraph import hookimpl


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
