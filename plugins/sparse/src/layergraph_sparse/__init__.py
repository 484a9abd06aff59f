"""Handlers for the embeddings of torch.nn, and sparse tensors."""

from __future__ import annotations

from torch import nn

from layergraph import TensorKind, hookimpl
from layergraph.layers import Layer

from .tensors import kinds


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes, each with its constructor arguments."""
    return [
        # The state dict holds the weight, and the core sets requires_grad.
        Layer(nn.Embedding, always=["padding_idx"], never=["_weight", "_freeze"]),
        Layer(nn.EmbeddingBag, always=["mode", "padding_idx"], never=["_weight"]),
    ]


@hookimpl(trylast=True)
def tensor_kinds() -> list[TensorKind]:
    """List the sparse layouts of torch."""
    return kinds()
