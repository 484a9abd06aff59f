"""Layers that their constructor arguments describe.

A plugin lists a row for each class of another library, and decorates its own classes::

    @hookimpl
    def layers():
        return [Layer(nn.Linear, always=["bias"]), Layer(nn.Bilinear, always=["bias"])]

    @layer
    class Scale(nn.Module): ...
"""

from layergraph.layers.marking import is_marked, layer, marked_layers
from layergraph.layers.row import Layer, Reader, Writer
from layergraph.layers.signatures import signature_of, types_of_torch
from layergraph.layers.table import LayerTable

__all__ = [
    "Layer",
    "LayerTable",
    "Reader",
    "Writer",
    "is_marked",
    "layer",
    "marked_layers",
    "signature_of",
    "types_of_torch",
]
