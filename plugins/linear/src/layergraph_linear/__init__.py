"""Handlers for the linear layers of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import hookimpl
from layergraph.layers import Layer


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes, each with its constructor arguments."""
    return [
        Layer(nn.Linear, always=["bias"]),
        Layer(nn.Bilinear, always=["bias"]),
        Layer(nn.Identity),
    ]
