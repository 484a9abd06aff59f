"""``layergraph select``: list the nodes of a file that a text selects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import layergraph as lg
from layergraph_cli.output import as_json, counted, line
from layergraph_files.values import encode

if TYPE_CHECKING:
    from layergraph_rewrite import Call


def select(
    text: Annotated[str, typer.Argument(help="A text such as 'layer*.* conv2d[groups>1]'.")],
    file: Annotated[Path, typer.Argument(help="The file of a model.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the nodes of a model that match a text, in execution order.

    The text consists of a path, or of a type or function with comparisons in brackets, or of both.
    layergraph reads no weights.
    """
    found = lg.load(file).select(text)
    if json:
        as_json({"file": str(file), "nodes": [_form(call) for call in found]})
        return
    for call in found:
        said = ", ".join(f"{name}={value!r}" for name, value in call.data.items())
        line((str(call.site), "bold"), f": {_called(call)}({said})")
    line(counted(len(found), "node"))


def _called(call: Call) -> str:
    name = call.function or call.type
    return name if call.layer is None else f"{name} {call.layer}"


def _form(call: Call) -> dict[str, Any]:
    return {
        "graph": call.site.graph,
        "node": call.site.node,
        "type": call.type,
        "layer": call.layer,
        "function": call.function,
        "data": {name: encode(value) for name, value in call.data.items()},
    }
