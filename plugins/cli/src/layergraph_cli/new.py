"""``layergraph new-plugin``: where a plugin begins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layergraph_cli.output import line


def new_plugin(
    name: Annotated[str, typer.Argument(help="The name of the distribution: acme-layers.")],
    folder: Annotated[
        Path, typer.Option("--in", help="Where the folder of that name is to be.")
    ] = Path(),
) -> None:
    """Make a new plugin: a package that works, to be changed.

    It has one layer, its handlers and its tests.
    """
    # It asks torch which types are taken.
    from layergraph_cli.new_plugin import create

    made = create(name, folder)
    line(f"{made}: pip install -e {made}, then pytest {made}")
