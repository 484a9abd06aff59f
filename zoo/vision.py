"""torchvision's models, all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torchvision.models import get_model, get_model_builder, list_models

from zoo.entry import Entry, Inputs, Sizes

_T = TypeVar("_T")

_FRAMES = 8
_DEFAULT = Sizes(length=64, other_length=96)

# By how the name begins, where the default will not do: the longest that fits counts.
_SIZES = {
    "inception_v3": Sizes(length=75, other_length=107),
    "quantized_inception_v3": Sizes(length=75, other_length=107),
    "maxvit": Sizes(length=224, other_length=256),
    "mvit": Sizes(length=224, other_length=256, batch=1, other_batch=2),
    "raft": Sizes(length=128, other_length=136),
    "s3d": Sizes(length=224, other_length=256, batch=1, other_batch=2),
    "vit": Sizes(length=64, other_length=96),
    "vit_h_14": Sizes(length=56, other_length=84),
}
_ARGUMENTS: dict[str, dict[str, Any]] = {
    # Their own initialization takes minutes.
    "googlenet": {"init_weights": False},
    "inception_v3": {"init_weights": False},
    "quantized_googlenet": {"init_weights": False},
    "quantized_inception_v3": {"init_weights": False},
    "vit": {"image_size": 64},
    "vit_h_14": {"image_size": 56},
}
_FRAMES_OF = {"mvit": 16, "s3d": 16}


def vision_entries() -> list[Entry]:
    """An entry for each model that torchvision lists."""
    return [_entry(name) for name in list_models()]


def _entry(name: str) -> Entry:
    # torchvision.models.resnet, but torchvision.models.segmentation.fcn
    _, _, family, *rest = get_model_builder(name).__module__.split(".")
    if not rest:
        family = "classification"
    return Entry(
        name=f"torchvision/{name}",
        family=f"torchvision {family.replace('_', ' ')}",
        make=partial(_make, name, family),
        make_inputs=_inputs(name, family),
        sizes=_longest(_SIZES, name, _DEFAULT),
    )


def _longest(table: Mapping[str, _T], name: str, default: _T) -> _T:
    fitting = [prefix for prefix in table if name.startswith(prefix)]
    return table[max(fitting, key=len)] if fitting else default


def _make(name: str, family: str) -> nn.Module:
    arguments: dict[str, Any] = {"weights": None, **_longest(_ARGUMENTS, name, {})}
    if family != "optical_flow":
        arguments["num_classes"] = 5
    if family in ("segmentation", "detection"):
        arguments["weights_backbone"] = None
    if family == "detection":
        # What random weights find is not sure of itself, and no boxes would tell nothing.
        threshold = "box_score_thresh" if "rcnn" in name else "score_thresh"
        arguments[threshold] = 0.0
        if "rcnn" in name or "retina" in name or "fcos" in name:
            arguments |= {"min_size": 64, "max_size": 128}
        if "maskrcnn" in name or "keypointrcnn" in name:
            # Each box is drawn at the size of its picture, in a loop.
            arguments["box_detections_per_img"] = 8
    model: nn.Module = get_model(name, **arguments)
    return model


def _inputs(name: str, family: str) -> Callable[[int, int], Inputs]:
    if family == "video":
        return partial(_clips, _longest(_FRAMES_OF, name, _FRAMES))
    if family == "optical_flow":
        return _flow
    if family == "detection":
        return _list_of_pictures
    return _pictures


def _pictures(batch: int, length: int) -> Inputs:
    return (torch.randn(batch, 3, length, length),), {}


def _clips(frames: int, batch: int, length: int) -> Inputs:
    return (torch.randn(batch, 3, frames, length, length),), {}


def _flow(batch: int, length: int) -> Inputs:
    first, second = torch.rand(2, batch, 3, length, length) * 2 - 1
    return (first, second), {"num_flow_updates": 2}


def _list_of_pictures(batch: int, length: int) -> Inputs:
    # Of several sizes, as they may be.
    return ([torch.rand(3, length, length + 16 * each) for each in range(batch)],), {}
