"""Handlers for the distance functions of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import hookimpl
from layergraph.layers import Layer


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes, each with its constructor arguments."""
    return [
        Layer(nn.CosineSimilarity, always=["dim", "eps"]),
        Layer(nn.PairwiseDistance, always=["p", "eps"], readers={"p": lambda module: module.norm}),
    ]
