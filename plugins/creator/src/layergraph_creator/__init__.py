"""Fixed-point layers and the IR of elasticai-creator, which is imported on first use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from layergraph import Implementation, hookimpl
from layergraph.hook_types.formats import Format

if TYPE_CHECKING:  # reading a structure from a file needs no torch
    from torch import nn

    from layergraph_creator.exchange import from_creator, to_creator

__all__ = ["from_creator", "to_creator"]

# The types of the layers, by the path of their class in `elasticai.creator.nn`.
TYPES = {
    "fixed_point.BatchNormedConv1d": "fixed_point_batchnormed_conv1d",
    "fixed_point.BatchNormedLinear": "fixed_point_batchnormed_linear",
    "fixed_point.Conv1d": "fixed_point_conv1d",
    "fixed_point.Linear": "fixed_point_linear",
    "fixed_point.lstm.layer.FixedPointLSTMWithHardActivations": "fixed_point_lstm",
    "fixed_point.AdaptableSiLU": "fixed_point_adaptable_silu",
    "fixed_point.HardSigmoid": "fixed_point_hardsigmoid",
    "fixed_point.HardTanh": "fixed_point_hardtanh",
    "fixed_point.PReLU": "fixed_point_prelu",
    "fixed_point.ReLU": "fixed_point_relu",
    "fixed_point.Sigmoid": "fixed_point_sigmoid",
    "fixed_point.SiLU": "fixed_point_silu",
    "fixed_point.Tanh": "fixed_point_tanh",
    "BufferedIdentity": "buffered_identity",
    "BufferlessIdentity": "bufferless_identity",
}
SEQUENTIAL = "creator_sequential"
_TYPES = frozenset(TYPES.values())
_HOME = "elasticai.creator.nn."

# Not the hook `layers`: to list the classes, it would import elasticai-creator at the first
# conversion.


@hookimpl(trylast=True)
def torch_to_ir(module: nn.Module) -> Implementation | None:
    """Describe a layer of elasticai.creator.nn with its bit widths, or its Sequential."""
    if not type(module).__module__.startswith(_HOME):
        return None
    from . import layers

    return layers.to_ir(module)


@hookimpl(trylast=True)
def ir_to_torch(
    implementation: Implementation, children: Mapping[str, nn.Module]
) -> nn.Module | None:
    """Build a layer or a Sequential of elasticai.creator.nn."""
    if implementation.type not in _TYPES and implementation.type != SEQUENTIAL:
        return None
    from . import layers

    return layers.to_torch(implementation, children)


@hookimpl
def formats() -> list[Format]:
    """List the format ``.creator.json``."""
    return [Format(".creator.json", "the IR of elasticai-creator", _write, _read)]


def _write(ir: Any, path: Any, state_dict: Any = None) -> None:
    importlib.import_module(f"{__name__}.files").save(ir, path, state_dict)


def _read(path: Any, **options: Any) -> Any:
    return importlib.import_module(f"{__name__}.files").load(path, **options)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.exchange"), name)
