"""``layergraph passes`` and ``layergraph run``: list passes, and run some on a file."""

from __future__ import annotations

import ast
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import layergraph as lg
from layergraph.errors import ArgumentError, FileError
from layergraph_cli.output import as_json, line

if TYPE_CHECKING:
    import torch


def passes(
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the installed passes, with their options."""
    from layergraph_rewrite.passes import installed_passes

    found = sorted(installed_passes().values(), key=lambda each: each.row.name)
    owners = {each.row.name: each.plugin.distribution for each in found if each.plugin}
    if json:
        as_json(
            [
                {
                    "name": each.row.name,
                    "distribution": owners[each.row.name],
                    "help": each.row.help,
                    "options": [
                        {"name": name, "type": kind, "required": is_required}
                        | ({} if is_required else {"default": repr(default)})
                        for name, kind, default, is_required in each.row.options
                    ],
                }
                for each in found
            ]
        )
        return
    for each in found:
        line((each.row.name, "bold"), f" ({owners[each.row.name]})")
        line(f"  {each.row.help.partition(chr(10))[0] or 'no description'}")
        for option in each.row.options:
            line(f"  {option}")


def run(
    names: Annotated[list[str], typer.Argument(metavar="PASS...", help="The passes, in order.")],
    file: Annotated[Path, typer.Argument(help="The file of a model.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PASS.OPTION=VALUE", help="An option of a pass."),
    ] = None,
) -> None:
    """Run passes on the model in a file, and write the new one to another file.

    layergraph prints a line for each change, and for each place that a pass refused.
    """
    ir, weights = lg.load(file), _weights(file)
    ir, state, report = lg.run_passes(ir, names, weights, options=_options(settings or []))
    lg.save(ir, out, state)
    for entry in report.entries:
        line((str(entry), "" if entry.is_applied else "yellow"))
    line(f"{len(report.applied)} changes, {len(report.refused)} refused: {out}")


def _weights(file: Path) -> dict[str, torch.Tensor] | None:
    """Return the weights in a file, lazily; None if the file has no weights."""
    from layergraph_cli.weights import read_weights

    try:
        return read_weights(file)
    except FileError:
        if file.suffix == ".json":
            return None
        raise


def _options(settings: list[str]) -> dict[str, dict[str, Any]]:
    """Return options by pass from ``PASS.OPTION=VALUE``."""
    from layergraph_rewrite.passes import installed_passes

    types = {
        (each.row.name, option.name): option.type
        for each in (installed_passes() if settings else {}).values()
        for option in each.row.options
    }
    found: dict[str, dict[str, Any]] = {}
    for each in settings:
        place, equals, text = each.partition("=")
        name, dot, option = place.partition(".")
        if not (equals and dot and name and option):
            raise ArgumentError(f"{each!r} sets no option; write PASS.OPTION=VALUE")
        option = option.replace("-", "_")
        found.setdefault(name, {})[option] = _value(text, types.get((name, option), ""))
    return found


def _value(text: str, kind: str) -> Any:
    """Return the literal of Python or JSON if the option accepts it; else the text."""
    from layergraph_rewrite.passes import fits_option

    for read in (ast.literal_eval, loads):
        try:
            value = read(text)
        except (ValueError, SyntaxError):
            continue
        return value if fits_option(value, kind) else text
    return text
