"""Handlers for the recurrent layers of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import Implementation, hookimpl
from layergraph.layers import Layer, LayerTable

TABLE = LayerTable(
    [
        *(
            Layer(cls, derived=["_flat_weights", "_flat_weight_refs"])
            for cls in (nn.RNN, nn.LSTM, nn.GRU)
        ),
        *(Layer(cls) for cls in (nn.RNNCell, nn.LSTMCell, nn.GRUCell)),
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
