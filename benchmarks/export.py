"""Measure capture by layergraph side by side with torch.export, on models of the zoo."""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import nn

import layergraph as lg
from zoo import Entry, all_entries, matching
from zoo.entry import Inputs
from zoo.run import prepare

# Captures that take longer than this, in seconds, are not repeated.
QUICK = 10.0
REPETITIONS = 3


@dataclass
class Measured:
    """The seconds that each took in each repetition, or why there are none."""

    name: str
    family: str
    capture: list[float] = field(default_factory=list)
    both_modes: list[float] = field(default_factory=list)
    export: list[float] = field(default_factory=list)
    file: list[float] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)

    def ratio(self, capture: Sequence[float]) -> float:
        """How many times as long torch.export takes, with its file, as a way of capturing."""
        both = [one + other for one, other in zip(self.export, self.file, strict=True)]
        return statistics.median(both) / statistics.median(capture)

    @property
    def ratios(self) -> tuple[float, float, float]:
        """That of one mode, that of both, and that of one mode without the file."""
        without_file = statistics.median(self.export) / statistics.median(self.capture)
        return self.ratio(self.capture), self.ratio(self.both_modes), without_file


def measure(entry: Entry) -> Measured:
    """Take turns, so that what else the machine does meets both alike."""
    measured = Measured(entry.name, entry.family)
    model = _without_cache(entry.model())
    inputs = entry.inputs(entry.sizes.batch, entry.sizes.length, 1)
    ways: dict[str, Callable[[nn.Module, Inputs], list[float]]] = {
        "layergraph": _with_layergraph,
        "torch.export": _with_export,
    }
    warm_up = 0.0
    for name, way in ways.items():
        try:
            warm_up += sum(way(model, inputs))
        except Exception as error:
            first = next(iter(str(error).strip().splitlines()), "")
            measured.refusals[name] = f"{type(error).__name__}: {first}"
    if not measured.refusals:
        for _ in range(REPETITIONS if warm_up < QUICK else 1):
            own, both = _with_layergraph(model, inputs)
            measured.capture.append(own)
            measured.both_modes.append(both)
            export, file = _with_export(model, inputs)
            measured.export.append(export)
            measured.file.append(file)
    return measured


def _without_cache(model: nn.Module) -> nn.Module:
    # Objects to remember things in are no tensors, and torch.export would refuse most texts.
    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "use_cache"):
        config.use_cache = False
    return model


def _with_layergraph(model: nn.Module, inputs: Inputs) -> list[float]:
    return [
        _seconds(lambda: lg.to_ir(model, *inputs, values="assume", modes="own")),
        _seconds(lambda: lg.to_ir(model, *inputs, values="assume")),
    ]


def _with_export(model: nn.Module, inputs: Inputs) -> list[float]:
    programs: list[torch.export.ExportedProgram] = []
    # It prints the graphs that it gives up on.
    silence = contextlib.redirect_stderr(io.StringIO())
    with silence, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"

        def there_and_back() -> None:
            torch.export.save(programs[0], path)
            torch.export.load(path)

        export = _seconds(lambda: programs.append(torch.export.export(model, *inputs)))
        return [export, _seconds(there_and_back)]


def _seconds(action: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def spread(entries: Sequence[Entry], per_family: int) -> list[Entry]:
    """Some of each family, as far from each other in its list as can be; all for 0."""
    families: dict[str, list[Entry]] = {}
    for each in entries:
        families.setdefault(each.family, []).append(each)
    chosen = []
    for members in families.values():
        count = min(per_family or len(members), len(members))
        chosen += [members[index * len(members) // count] for index in range(count)]
    return chosen


def results(measured: Iterable[Measured]) -> Table:
    table = Table(title="seconds, medians")
    table.add_column("model", no_wrap=True)
    for name in ("one mode", "both", "export", "save, load"):
        table.add_column(name, justify="right")
    for name in ("ratio", "of both", "without file"):
        table.add_column(name, justify="right")
    for each in measured:
        times = each.capture, each.both_modes, each.export, each.file
        seconds = [f"{statistics.median(every):.3f}" for every in times]
        table.add_row(each.name, *seconds, *[f"{ratio:.1f}" for ratio in each.ratios])
    return table


def refusals(measured: Iterable[Measured]) -> Table:
    table = Table(title="left out of the mean")
    for name in ("model", "refused by", "reason"):
        table.add_column(name, no_wrap=name != "reason")
    for each in measured:
        for way, reason in each.refusals.items():
            table.add_row(each.name, way, escape(reason[:160]))
    return table


def geometric_mean(values: Iterable[float]) -> float:
    return math.exp(statistics.fmean(math.log(each) for each in values))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
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
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    measured = []
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(entries))
        for entry in entries:
            progress.update(task, description=entry.name)
            measured.append(measure(entry))
            progress.advance(task)
    by_both = [each for each in measured if not each.refusals]
    if by_both:
        console.print(results(by_both))
    if len(by_both) < len(measured):
        console.print(refusals(measured))
    for way in ("layergraph", "torch.export"):
        count = sum(way in each.refusals for each in measured)
        console.print(f"{way} refuses {count} of {len(measured)} models")
    if by_both:
        means = [
            geometric_mean(one) for one in zip(*[each.ratios for each in by_both], strict=True)
        ]
        console.print(
            f"geometric means over {len(by_both)} models: torch.export with save and load takes "
            f"{means[0]:.2f} times as long as layergraph's capture of the same mode, "
            f"{means[1]:.2f} times as long as that of both modes; alone {means[2]:.2f} times"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
