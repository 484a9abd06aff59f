"""Handlers for the recurrent layers of torch.nn."""

from __future__ import annotations

from typing import get_overloads

from torch import nn

from layergraph import Implementation, hookimpl
from layergraph.layers import Layer, LayerTable


def _over_time(cls: type[nn.Module]) -> Layer:
    """The row of a layer that runs over sequences.

    Its constructor takes ``*args, **kwargs``; the first of its overloads says what these may be.
    """
    said = type(cls.__name__, (cls,), {"__init__": get_overloads(vars(cls)["__init__"])[0]})
    layer = Layer(said, derived=["_flat_weights", "_flat_weight_refs"])
    layer.cls = cls
    return layer


TABLE = LayerTable(
    [
        *(_over_time(cls) for cls in (nn.RNN, nn.LSTM, nn.GRU)),
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
