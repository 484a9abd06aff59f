"""Handlers for the padding layers of torch.nn."""

from __future__ import annotations

from torch import nn

from layergraph import hookimpl
from layergraph.layers import Layer


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes, each with its constructor arguments."""
    return [
        Layer(nn.CircularPad1d),
        Layer(nn.CircularPad2d),
        Layer(nn.CircularPad3d),
        Layer(nn.ConstantPad1d),
        Layer(nn.ConstantPad2d),
        Layer(nn.ConstantPad3d),
        Layer(nn.ReflectionPad1d),
        Layer(nn.ReflectionPad2d),
        Layer(nn.ReflectionPad3d),
        Layer(nn.ReplicationPad1d),
        Layer(nn.ReplicationPad2d),
        Layer(nn.ReplicationPad3d),
        Layer(nn.ZeroPad1d),
        Layer(nn.ZeroPad2d),
        Layer(nn.ZeroPad3d),
    ]
