"""``layergraph show --shapes``: show the shape of every value of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layergraph.ir import Ir
from layergraph_cli.output import as_json, line


def show_shapes(file: Path, ir: Ir, inputs: Sequence[str], *, json: bool) -> None:
    """Print the shape of every value that a call computes.

    Args:
        file: the file, for the JSON text.
        ir: the model.
        inputs: the texts of the inputs: see :func:`layergraph_shapes.texts.argument`.
        json: whether to print JSON.

    Raises:
        LayergraphError: as for :func:`layergraph.shapes`.
    """
    from layergraph import shapes
    from layergraph_shapes.texts import arguments_of

    found = shapes(ir, *arguments_of(inputs))
    if json:
        as_json({"file": str(file), "shapes": str(found).splitlines()})
        return
    for each in str(found).splitlines():
        line(each)
