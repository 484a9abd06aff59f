"""Example inputs for the models of torchvision."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch import nn

_BATCH = 2
_SIDE = 64
_FRAMES = 8
# The side of the smallest image that a model of this class takes, also in training mode.
_SIDES = {"Inception3": 299, "QuantizableInception3": 299, "MaxVit": 224, "S3D": 224, "RAFT": 128}
_LONG = {"S3D": 16}

# Any, because we read attributes of the model's own class.
_Model = Any


def inputs_of(model: _Model) -> tuple[Any, ...] | None:
    """Return arguments for a model of torchvision; None for any other module."""
    cls = type(model)
    package, _, rest = cls.__module__.partition(".models.")
    if package != "torchvision" or cls not in _models():
        return None
    like = next(model.parameters())
    family = rest.partition(".")[0]
    side = _SIDES.get(cls.__name__, _SIDE)
    if family == "detection":
        # In training, a detection model also needs targets.
        return None if model.training else (_list_of_pictures(like, side),)
    if family == "optical_flow":
        first, second = _pictures(like, 2, _BATCH, 3, side, side)
        return first, second
    if cls.__name__ == "MViT":
        return (_pictures(like, 1, 3, *_sizes_of_mvit(model)),)
    if family == "video":
        return (_pictures(like, _BATCH, 3, _LONG.get(cls.__name__, _FRAMES), side, side),)
    if cls.__name__ == "VisionTransformer":
        side = model.image_size
    return (_pictures(like, _BATCH, 3, side, side),)


@functools.cache
def _models() -> frozenset[type[nn.Module]]:
    """Return the classes of all models that torchvision lists, but not those of their parts."""
    from torchvision.models import (  # type: ignore[import-untyped]
        get_model_builder,
        list_models,
    )

    builders = map(get_model_builder, list_models())
    return frozenset(inspect.signature(builder).return_annotation for builder in builders)


def _sizes_of_mvit(model: _Model) -> list[int]:
    """Return the number of frames, the height and the width of the model's positional encoding."""
    positions = model.pos_encoding
    sizes = (positions.temporal_size, *positions.spatial_size)
    return [size * step for size, step in zip(sizes, model.conv_proj.stride, strict=True)]


def _list_of_pictures(like: torch.Tensor, side: int) -> list[torch.Tensor]:
    # Detection models accept images of different sizes.
    return [_pictures(like, 3, side, side + 16 * each) for each in range(_BATCH)]


def _pictures(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """Return numbers from 0 to 1; neighbours differ."""
    size = torch.Size(shape)
    numbers = torch.arange(size.numel(), device=like.device) * 0.7
    return ((numbers.sin() + 1) / 2).reshape(size).to(like.dtype)
