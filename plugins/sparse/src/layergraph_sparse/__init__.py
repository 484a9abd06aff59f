"""Handlers for the embeddings of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import Implementation, hookimpl
from layergraph.layers import Layer, LayerTable

TABLE = LayerTable(
    [
        # Of the weight, the state dict says the values, and the core whether it is trained.
        Layer(nn.Embedding, always=["padding_idx"], never=["_weight", "_freeze"]),
        Layer(nn.EmbeddingBag, always=["mode", "padding_idx"], never=["_weight"]),
    ]
)


@hookimpl(trylast=True)
def torch_to_ir(module: nn.Module) -> Implementation | None:
    """Answer for the classes of the table."""
    return TABLE.to_ir(module)


@hookimpl(trylast=True)
def ir_to_torch(implementation: Implementation) -> nn.Module | None:
    """Answer for the types of the table."""
    return TABLE.to_torch(implementation)
