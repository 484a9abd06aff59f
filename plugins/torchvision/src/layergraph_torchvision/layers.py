"""The layers of torchvision.ops that are leaves."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from layergraph.layers import Layer, LayerTable

# The options of the row of each class. All other layers are composites of torch's functions and
# layers: a capture traces them, so that the rebuilt model does not need torchvision.
_ROWS: dict[str, dict[str, Any]] = {
    # Kernels.
    "DeformConv2d": {"always": ["bias"]},
    "PSRoIAlign": {},
    "PSRoIPool": {},
    "RoIAlign": {},
    "RoIPool": {},
    # The code of these layers branches on sizes. The pooler also stores values in its first run.
    "DropBlock2d": {},
    "DropBlock3d": {},
    "MultiScaleRoIAlign": {"derived": ["scales", "map_levels"]},
    # Its state dict lacks num_batches_tracked of nn.BatchNorm2d.
    "FrozenBatchNorm2d": {"readers": {"num_features": lambda module: module.weight.shape[0]}},
}
_TYPES = {name.lower() for name in _ROWS}


def is_class(cls: type[nn.Module]) -> bool:
    """Return whether there is a row for a class."""
    return cls.__name__ in _ROWS and cls.__module__.startswith("torchvision.ops.")


def is_type(kind: str) -> bool:
    """Return whether there is a row for a type."""
    return kind in _TYPES


@functools.cache
def table() -> LayerTable:
    """Import torchvision, and return the table of its layers."""
    from torchvision import ops  # type: ignore[import-untyped]

    return LayerTable([Layer(getattr(ops, name), **options) for name, options in _ROWS.items()])
