"""Handlers for the embeddings of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import hookimpl
from layergraph.layers import Layer


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes of torch.nn, each with what it says of itself."""
    return [
        # Of the weight, the state dict says the values, and the core whether it is trained.
        Layer(nn.Embedding, always=["padding_idx"], never=["_weight", "_freeze"]),
        Layer(nn.EmbeddingBag, always=["mode", "padding_idx"], never=["_weight"]),
    ]
