"""``layergraph view``: write a picture of the model in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import layergraph as lg
from layergraph_files.limits import DEFAULT_LIMITS
from layergraph_files.reader import opened


def view(
    file: Annotated[Path, typer.Argument(help="The file of a model.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The file to write: .html, .svg, .mmd, .dot or .explorer.json."
        ),
    ] = None,
    diff: Annotated[
        Path | None, typer.Option(metavar="OTHER", help="An older file; mark what has changed.")
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT",
            help="Show the shape of every value for these inputs: 2,3,32,32 or "
            "mask=bool[batch,length]. Once for each input.",
        ),
    ] = None,
    depth: Annotated[
        int, typer.Option(min=1, help="The levels that .svg, .mmd and .dot show.")
    ] = 1,
) -> None:
    """Write a page that shows the model, or a picture of it.

    Without --out, the page is FILE with the suffix .html. It reads no weights.
    """
    # Imported here, because they import torch, which takes a second.
    from layergraph_files.build import build_meta_model
    from layergraph_shapes.texts import arguments_of
    from layergraph_view.api import format_of, view_of

    target = file.with_suffix(".html") if out is None else out
    format_of(target)
    args, kwargs = arguments_of(shapes) if shapes else (None, None)
    older = None if diff is None else lg.load(diff)
    with opened(file, DEFAULT_LIMITS) as model:

        def tensors() -> Sequence[Any]:
            return build_meta_model(model, DEFAULT_LIMITS).listed

        shown = view_of(model.ir, file.stem, args, kwargs, diff=older, tensors=tensors)
    shown.save(target, depth)
    typer.echo(str(target))
