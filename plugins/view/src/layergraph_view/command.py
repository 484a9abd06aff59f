"""``layergraph view``: write a picture of the model in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import layergraph as lg
from layergraph.errors import ArgumentError, LayergraphError
from layergraph.ir import check
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
            help="Show the shape of every value for these inputs: 2,3,32,32. Once for each input.",
        ),
    ] = None,
    depth: Annotated[
        int, typer.Option(min=1, help="The levels that .svg, .mmd and .dot show.")
    ] = 1,
) -> None:
    """Write a page that shows the model, or a picture of it.

    Without --out, the page is FILE with the suffix .html. It reads no weights.
    """
    from layergraph_view.api import view_of

    target = file.with_suffix(".html") if out is None else out
    args = None if shapes is None else [_shape(each) for each in shapes]
    older = None if diff is None else lg.load(diff)
    with opened(file, DEFAULT_LIMITS) as model:
        check(model.ir)
        tensors: list[Any] = []
        try:
            # Imported here, because torch takes a second, and an unreadable file fails before.
            from layergraph_files.build import build_meta_model

            tensors = list(build_meta_model(model, DEFAULT_LIMITS).listed)
        except LayergraphError:
            if args is not None:
                raise
        shown = view_of(model.ir, file.stem, args, diff=older, tensors=tensors)
    shown.save(target, depth)
    typer.echo(str(target))


def _shape(text: str) -> tuple[int | str, ...]:
    sizes = [each.strip() for each in text.strip("[]").split(",") if each.strip()]
    if not all(each.isdecimal() or each.isidentifier() for each in sizes):
        raise ArgumentError(f"{text!r} is no shape; write sizes as 2,3,32,32 or batch,10")
    return tuple(int(each) if each.isdecimal() else each for each in sizes)
