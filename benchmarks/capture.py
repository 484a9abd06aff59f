"""Measure capture and rebuilding, in units of what the model itself takes, on models of the zoo."""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import track
from rich.table import Table

import layergraph as lg
from benchmarks.export import geometric_mean, spread
from layergraph.errors import LayergraphError
from zoo import Entry, all_entries, matching
from zoo.run import prepare

ROUNDS = 7


@dataclass
class Measured:
    """The median seconds that each took."""

    name: str
    forward: float
    capture: float
    making: float
    rebuilding: float

    @property
    def capture_ratio(self) -> float:
        """How many times as long as the model's own forward capture takes."""
        return self.capture / self.forward

    @property
    def rebuilding_ratio(self) -> float:
        """How many times as long as the original's constructor rebuilding takes."""
        return self.rebuilding / self.making


def measure(entry: Entry) -> Measured:
    """Take turns, so that what else the machine does meets all alike; the first round is thrown
    away."""
    model = entry.model()
    args, kwargs = entry.inputs(entry.sizes.batch, entry.sizes.length, 1)
    ir = lg.to_ir(model, args, kwargs, values="assume")
    ways: list[Callable[[], object]] = [
        lambda: model(*args, **kwargs),
        lambda: lg.to_ir(model, args, kwargs, values="assume"),
        entry.make,
        lambda: lg.to_torch(ir),
    ]
    rounds = [[_seconds(way) for way in ways] for _ in range(ROUNDS + 1)]
    return Measured(entry.name, *map(statistics.median, zip(*rounds[1:], strict=True)))


def _seconds(action: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def results(measured: Iterable[Measured]) -> Table:
    table = Table(title="milliseconds, medians")
    table.add_column("model", no_wrap=True)
    for name in ("forward", "to_ir", "ratio", "constructor", "to_torch", "ratio"):
        table.add_column(name, justify="right")
    for each in measured:
        seconds = each.forward, each.capture, each.making, each.rebuilding
        forward, capture, making, rebuilding = (f"{1000 * each:.1f}" for each in seconds)
        ratios = f"{each.capture_ratio:.1f}", f"{each.rebuilding_ratio:.2f}"
        table.add_row(each.name, forward, capture, ratios[0], making, rebuilding, ratios[1])
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capture", description=__doc__)
    parser.add_argument("--only", metavar="PATTERN", default="*", help="a name or a family")
    parser.add_argument(
        "--per-family", metavar="N", type=int, default=3, help="models of each family (3); 0: all"
    )
    options = parser.parse_args(arguments)
    entries = spread(matching(all_entries(), options.only), options.per_family)
    if not entries:
        parser.error(f"no model is called {options.only!r}")
    prepare()
    console = Console()
    if not console.is_terminal:
        console.width = 140
    measured, refused = [], []
    for entry in track(entries, console=console):
        try:
            measured.append(measure(entry))
        except LayergraphError:
            refused.append(entry.name)
    if measured:
        console.print(results(measured))
        capture = geometric_mean(each.capture_ratio for each in measured)
        rebuilding = geometric_mean(each.rebuilding_ratio for each in measured)
        console.print(
            f"geometric mean over {len(measured)} models: capture takes {capture:.2f} times as "
            f"long as the model's forward, rebuilding {rebuilding:.2f} times as long as its "
            "constructor"
        )
    if refused:
        console.print(f"layergraph refuses {', '.join(refused)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
