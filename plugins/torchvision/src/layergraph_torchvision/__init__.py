"""Names for the functions of torchvision that cannot be traced through without inputs."""

from __future__ import annotations

from collections.abc import Collection

from layergraph import hookimpl


@hookimpl(trylast=True)
def functions() -> Collection[str]:
    """Name the attention of the Swin transformers.

    It shifts and pads by the size of what it is given. torchvision itself declares it a leaf for
    torch.fx, with ``torch.fx.wrap``.
    """
    return ["torchvision.models.swin_transformer.shifted_window_attention"]
