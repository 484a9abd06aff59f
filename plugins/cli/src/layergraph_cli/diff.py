"""``layergraph diff``: compare two files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import layergraph as lg
from layergraph_cli.output import as_json, line

_STYLES = {"+": "green", "-": "red", "~": "yellow"}


def diff(
    a: Annotated[Path, typer.Argument(help="The first file.")],
    b: Annotated[Path, typer.Argument(help="The second file.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Compare the structures of two models.

    layergraph compares layers, attributes, tensors and connections, but neither weights nor names
    of nodes. Exit code 1: the models differ.
    """
    found = lg.diff(lg.load(a), lg.load(b))
    if json:
        as_json({"a": str(a), "b": str(b), "alike": not found, **found.to_dict()})
    else:
        for each in found.lines():
            line((each, _STYLES.get(each.strip()[:1], "")))
    return 1 if found else 0
