"""The rows of the hook ``lowerings``, from all tables of this package."""

from __future__ import annotations

from layergraph import Lowering
from layergraph_onnx import (
    activations,
    arithmetic,
    arranging,
    deciding,
    layers,
    making,
    memory,
    recurrent,
    reducing,
)
from layergraph_onnx.exported import lower_exported
from layergraph_onnx.table import TABLE
from layergraph_onnx.target import Onnx

_TABLES = (
    activations,
    arithmetic,
    arranging,
    deciding,
    layers,
    making,
    memory,
    recurrent,
    reducing,
)


def rows() -> list[Lowering]:
    """Return the rows; the last one is the fallback for all other steps."""
    return [*TABLE.rows, Lowering(Onnx.target, lower_exported)]
