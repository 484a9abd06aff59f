"""Rows for the layers of quantization-aware training, with their settings as attributes."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchao.quantization.qat.embedding import FakeQuantizedEmbedding  # type: ignore[import-untyped]
from torchao.quantization.qat.linear import FakeQuantizedLinear  # type: ignore[import-untyped]

from layergraph import Implementation, decline
from layergraph.layers import Layer, Reader

from .values import restored, said


def to_ir(module: nn.Module) -> Implementation | None:
    """Answer the hook ``torch_to_ir`` for a layer."""
    for inner in module.children():
        config = getattr(inner, "config", None)
        is_dynamic = getattr(config, "is_dynamic", True)
        if not is_dynamic or getattr(config, "range_learning", False):
            return decline(
                "its quantizer keeps or learns its scales, which a row does not describe"
            )
    return _ROWS[type(module)].to_ir(module)


def to_torch(implementation: Implementation) -> nn.Module:
    """Answer the hook ``ir_to_torch`` for a type of these layers."""
    row = next(row for row in _ROWS.values() if row.type == implementation.type)
    return row.to_torch(implementation)


def _config_of(quantizer: str) -> Reader:
    def read(module: nn.Module) -> Any:
        found: Any = getattr(module, quantizer)
        return None if found is None else said(found.config)

    return read


_WRITERS = {"activation_config": restored, "weight_config": restored}
# A quantizer stores the scales of the last call, and computes new ones in each call.
_NOTED = ("scale", "zero_point")
_ROWS: dict[type[nn.Module], Layer] = {
    FakeQuantizedLinear: Layer(
        FakeQuantizedLinear,
        always=["bias"],
        readers={
            "activation_config": _config_of("activation_fake_quantizer"),
            "weight_config": _config_of("weight_fake_quantizer"),
        },
        writers=_WRITERS,
        derived=_NOTED,
    ),
    FakeQuantizedEmbedding: Layer(
        FakeQuantizedEmbedding,
        always=["padding_idx"],
        readers={"weight_config": _config_of("weight_fake_quantizer")},
        writers={"weight_config": restored},
        derived=_NOTED,
    ),
}
