"""The subcommand that Acme adds to the command line: ``layergraph bits FILE``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import layergraph as lg
from acme_fixed_point.widths import FRAC, TOTAL
from layergraph import Implementation, hookimpl


@hookimpl
def commands() -> list[Callable[..., int | None]]:
    """List the subcommand."""
    return [bits]


def bits(file: Path) -> int:
    """Print the widths of the layers in a file.

    Exit code 1: no layer has widths.
    """
    widths = {layer.name: _widths(layer) for layer in lg.load(file).values()}
    for name, found in widths.items():
        if found is not None:
            # Quote the name, because a name in a file may contain control characters of the
            # terminal.
            print(f"{name!r}: {found[0]!r} bits, {found[1]!r} after the point")  # noqa: T201
    return 0 if any(widths.values()) else 1


def _widths(layer: Implementation) -> tuple[object, object] | None:
    if layer.type == "fixedpointlinear":
        return layer.data["total_bits"], layer.data["frac_bits"]
    return (layer.data[TOTAL], layer.data[FRAC]) if TOTAL in layer.data else None
