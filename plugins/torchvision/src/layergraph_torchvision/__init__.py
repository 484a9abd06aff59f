"""Names for the functions of torchvision that cannot be traced through without inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torchvision.models import swin_transformer  # type: ignore[import-untyped]

from layergraph import hookimpl


@hookimpl(trylast=True)
def functions() -> Mapping[str, Callable[..., Any]]:
    """Name the attention of the Swin transformers.

    It shifts and pads by the size of what it is given. torchvision itself declares it a leaf for
    torch.fx, with ``torch.fx.wrap``.
    """
    attention = swin_transformer.shifted_window_attention
    return {f"{attention.__module__}.{attention.__name__}": attention}
