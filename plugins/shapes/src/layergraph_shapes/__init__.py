"""Shapes of all values of an IR, and the cost of one call of the model."""

from layergraph_shapes.annotate import annotate_shapes
from layergraph_shapes.counting import Cost, LayerCost, cost
from layergraph_shapes.described import Either, TensorMeta
from layergraph_shapes.fake_model import meta_model
from layergraph_shapes.formulas import LayerCall
from layergraph_shapes.propagation import Shapes, shapes, shapes_of

__all__ = [
    "Cost",
    "Either",
    "LayerCall",
    "LayerCost",
    "Shapes",
    "TensorMeta",
    "annotate_shapes",
    "cost",
    "meta_model",
    "shapes",
    "shapes_of",
]
