"""Quantized tensors and layers of torchao, which is imported on first use."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from layergraph import Implementation, TensorKind, hookimpl

# The module of torchao for each class of tensors.
HOMES = {
    "Float8Tensor": "torchao.quantization",
    "Int4OpaqueTensor": "torchao.prototype.quantization.int4",
    "Int8Tensor": "torchao.quantization",
    "IntxUnpackedToInt8Tensor": "torchao.quantization",
}
LAYERS = frozenset({"FakeQuantizedEmbedding", "FakeQuantizedLinear"})
_TYPES = frozenset(map(str.lower, LAYERS))


def _flatten(
    name: str, tensor: torch.Tensor
) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    # If the program has not imported torchao, the tensor belongs to another library.
    home = sys.modules.get(HOMES[name])
    if home is None or type(tensor) is not getattr(home, name, None):
        return None
    from .tensors import flatten

    return flatten(tensor)


def _unflatten(name: str, parts: dict[str, torch.Tensor], values: dict[str, Any]) -> torch.Tensor:
    from .tensors import unflatten

    return unflatten(name, parts, values)


@hookimpl(trylast=True)
def tensor_kinds() -> Iterable[TensorKind]:
    """List the quantized tensors."""
    return [
        TensorKind(f"torchao.{name}", partial(_flatten, name), partial(_unflatten, name))
        for name in HOMES
    ]


@hookimpl(trylast=True)
def torch_to_ir(module: nn.Module) -> Implementation | None:
    """Describe the layers of quantization-aware training."""
    cls = type(module)
    if cls.__name__ not in LAYERS or not cls.__module__.startswith("torchao.quantization.qat."):
        return None
    from .layers import to_ir

    return to_ir(module)


@hookimpl(trylast=True)
def ir_to_torch(implementation: Implementation) -> nn.Module | None:
    """Make the layers of quantization-aware training."""
    if implementation.type not in _TYPES:
        return None
    from .layers import to_torch

    return to_torch(implementation)
