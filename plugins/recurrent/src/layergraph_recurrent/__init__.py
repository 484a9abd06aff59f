"""Handlers for the recurrent layers of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import hookimpl
from layergraph.layers import Layer


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes, each with its constructor arguments."""
    return [
        *(
            Layer(cls, derived=["_flat_weights", "_flat_weight_refs"])
            for cls in (nn.RNN, nn.LSTM, nn.GRU)
        ),
        *(Layer(cls) for cls in (nn.RNNCell, nn.LSTMCell, nn.GRUCell)),
    ]
