"""The layers of torchvision.ops that are kept whole."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from layergraph.layers import Layer, LayerTable

# What their rows say. The others are compositions of torch's functions and layers: traced through,
# they need no torchvision any more.
_SAID: dict[str, dict[str, Any]] = {
    # Kernels.
    "DeformConv2d": {"always": ["bias"]},
    "PSRoIAlign": {},
    "PSRoIPool": {},
    "RoIAlign": {},
    "RoIPool": {},
    # They decide by the sizes that they are given. The pooler also notes down, in its first run,
    # what follows from them.
    "DropBlock2d": {},
    "DropBlock3d": {},
    "MultiScaleRoIAlign": {"derived": ["scales", "map_levels"]},
    # Its state dict leaves out what that of nn.BatchNorm2d has.
    "FrozenBatchNorm2d": {"readers": {"num_features": lambda module: module.weight.shape[0]}},
}
_TYPES = {name.lower() for name in _SAID}


def is_class(cls: type[nn.Module]) -> bool:
    """Whether there is a row for a class."""
    return cls.__name__ in _SAID and cls.__module__.startswith("torchvision.ops.")


def is_type(kind: str) -> bool:
    """Whether there is a row for a type."""
    return kind in _TYPES


@functools.cache
def table() -> LayerTable:
    """The rows. Imports torchvision."""
    from torchvision import ops  # type: ignore[import-untyped]

    return LayerTable([Layer(getattr(ops, name), **said) for name, said in _SAID.items()])
