"""Measure layergraph side by side with peers, and compare the results with the goals."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.measures import MEASURES, measure
from benchmarks.plot import draw
from benchmarks.report import goals, table
from benchmarks.results import Row, environment
from benchmarks.settings import Settings
from benchmarks.timing import refusal
from zoo.run import prepare


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named measures, or all. The exit status reports failures, not missed goals."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--quick", action="store_true", help="a few minutes: fewer of everything")
    parser.add_argument("--models", metavar="PATTERN", help="models of the zoo, as '*/resnet*'")
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path(".bench"))
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - MEASURES.keys())
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    settings = Settings(options.quick, options.models)
    if not settings.entries():
        parser.error(f"no model is called {options.models!r}")
    prepare()
    console = Console()
    if not console.is_terminal:
        console.width = 180
    found: dict[str, list[Row]] = {}
    for name in options.names or MEASURES:
        start = time.monotonic()
        found[name] = []
        with console.status(name) as status:
            try:
                for row in measure(name)(settings):
                    found[name].append(row)
                    status.update(f"{name}: {row.what} {row.model}")
            except Exception as error:  # Continue with the other measures.
                found[name].append(Row("FAILED", "", note=refusal(error)))
        console.print(table(name, MEASURES[name], found[name]))
        console.print(f"{name} took {time.monotonic() - start:.0f} s\n")
        _write(options.out, settings, found)
    goals(console, found)
    for path in draw(found, options.out):
        console.print(f"{path}")
    console.print(f"{options.out / 'results.json'}")
    return int(any(each.what == "FAILED" for rows in found.values() for each in rows))


def _write(folder: Path, settings: Settings, found: dict[str, list[Row]]) -> None:
    """Write the results so far, because the next measure may take long."""
    folder.mkdir(parents=True, exist_ok=True)
    results = {
        "environment": environment(),
        "quick": settings.quick,
        "models": settings.pattern,
        "measures": {name: [each.to_dict() for each in rows] for name, rows in found.items()},
    }
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
