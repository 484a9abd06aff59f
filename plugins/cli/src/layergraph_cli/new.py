"""``layergraph new-plugin``: make the package of a new plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layergraph_cli.output import line


def new_plugin(
    name: Annotated[str, typer.Argument(help="The name of the distribution: acme-layers.")],
    folder: Annotated[
        Path, typer.Option("--in", help="The folder to put the package in.")
    ] = Path(),
) -> None:
    """Make a new plugin: a package that works, for you to change.

    It has one layer, its handlers and its tests.
    """
    # Imported here, because it imports torch.
    from layergraph_cli.new_plugin import create

    made = create(name, folder)
    line(f"{made}: pip install -e '{made}[test]', then pytest {made}")
