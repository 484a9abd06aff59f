"""``layergraph source``: write the Python source of a model in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer  # only the command line, which has it, imports this module


def source(
    file: Annotated[Path, typer.Argument(help="A file of layergraph.save.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A .py file; without it, print the source.")
    ] = None,
    class_name: Annotated[str, typer.Option(help="The name of the class.")] = "Net",
) -> None:
    """Write the Python source of the model in a file. It runs without layergraph."""
    # Imported here, because the list of subcommands needs no torch.
    import layergraph as lg
    from layergraph.errors import FileError
    from layergraph_source.files import replace_text
    from layergraph_source.writer import to_source

    text = to_source(lg.load(file), class_name)
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        replace_text(out, text)
    except OSError as error:
        raise FileError(f"{out} cannot be written: {error}; give another path") from error
