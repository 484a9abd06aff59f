"""Measure files of layergraph side by side with those of others, on models of at least a gigabyte.

Each measurement runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors.torch
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

import layergraph as lg
from layergraph.convert import default_ir2torch

ROUNDS = 3
MIB = 2**20


class Feedforward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))


def deep() -> nn.Module:
    """Many small layers: 1.0 GB in 1536 tensors."""
    return nn.Sequential(*[Feedforward(360) for _ in range(256)])


def wide() -> nn.Module:
    """Few large layers: 1.1 GB in 48 tensors."""
    return nn.Sequential(*[Feedforward(2048) for _ in range(8)])


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {"deep": (deep, 360), "wide": (wide, 2048)}


def _saves(name: str, folder: Path) -> dict[str, Callable[[], Callable[[], object]]]:
    """By way of saving: what prepares, and gives what is measured."""
    make, width = MODELS[name]

    def with_layergraph() -> Callable[[], object]:
        model = make()
        ir, state = lg.to_ir(model), model.state_dict()
        return lambda: lg.save(ir, folder / "layergraph.safetensors", state)

    def with_torch() -> Callable[[], object]:
        model = make()
        return lambda: torch.save(model, folder / "torch.pt")

    def with_safetensors() -> Callable[[], object]:
        state = make().state_dict()
        return lambda: safetensors.torch.save_file(state, folder / "plain.safetensors")

    def with_export() -> Callable[[], object]:
        program = torch.export.export(make(), (torch.zeros(1, width),))
        return lambda: torch.export.save(program, folder / "export.pt2")

    return {
        "layergraph": with_layergraph,
        "torch": with_torch,
        "safetensors": with_safetensors,
        "export": with_export,
    }


def _loads(name: str, folder: Path) -> dict[str, Callable[[], Callable[[], object]]]:
    _, width = MODELS[name]
    path = folder / "layergraph.safetensors"
    x = torch.zeros(1, width)

    def on_meta() -> Callable[[], object]:
        ir, converter = lg.load(path), default_ir2torch()
        return lambda: (
            safetensors.torch.load_file(folder / "plain.safetensors"),
            converter.convert(ir, device="meta"),
        )

    return {
        "layergraph": lambda: lambda: lg.load_model(path),
        "layergraph, read": lambda: lambda: lg.load_model(path)(x),
        "layergraph, structure": lambda: lambda: lg.load(path),
        "safetensors": lambda: lambda: safetensors.torch.load_file(folder / "plain.safetensors"),
        "safetensors + meta": on_meta,
        "torch": lambda: lambda: torch.load(folder / "torch.pt", weights_only=False),
        "torch, read": lambda: lambda: torch.load(folder / "torch.pt", weights_only=False)(x),
        "export": lambda: lambda: torch.export.load(folder / "export.pt2"),
    }


def measure_here(what: str, way: str, name: str, folder: Path) -> None:
    """Print the seconds of each round, and how much memory the process took more than before."""
    ways = _saves(name, folder) if what == "save" else _loads(name, folder)
    action = ways[way]()
    if what == "load":  # what is imported and set up when it is first used is not the file's
        small = folder / "small.safetensors"
        tiny = nn.Sequential(Feedforward(2))
        lg.save(lg.to_ir(tiny), small, tiny.state_dict())
        lg.load_model(small)
        safetensors.torch.load_file(small)
    before = _memory("VmRSS")
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        kept = action()
        seconds.append(time.perf_counter() - start)
        peak = _memory("VmHWM")
        del kept
    print(json.dumps({"seconds": seconds, "memory": max(0, peak - before)}))


def _memory(kind: str) -> int:
    """The memory of the process in bytes, as Linux tells it: what it has, or the most it had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


def measure(what: str, way: str, name: str, folder: Path) -> tuple[float, float]:
    """The median seconds, and the peak memory in MiB, in a new process."""
    command = [sys.executable, "-m", "benchmarks.files", "--one", what, way, name, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return statistics.median(found["seconds"]), found["memory"] / MIB


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files", description=__doc__)
    parser.add_argument("--only", metavar="MODEL", choices=MODELS, help="one of the models")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        what, way, name, folder = options.one
        measure_here(what, way, name, Path(folder))
        return 0
    console = Console()
    if not console.is_terminal:
        console.width = 140
    for name in [options.only] if options.only else MODELS:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            tasks = [("save", way) for way in _saves(name, folder)]
            tasks += [("load", way) for way in _loads(name, folder)]
            found = {
                (what, way): measure(what, way, name, folder)
                for what, way in track(tasks, console=console, description=name)
            }
            size = (folder / "plain.safetensors").stat().st_size / MIB
        table = Table(title=f"{name}: {size:.0f} MiB of weights; medians of {ROUNDS}")
        for column in ("", "", "milliseconds", "ratio to layergraph", "memory, MiB"):
            table.add_column(column, justify="right" if column else "left")
        for (what, way), (seconds, memory) in found.items():
            ratio = seconds / found[what, "layergraph"][0]
            table.add_row(what, way, f"{1000 * seconds:.1f}", f"{ratio:.2f}", f"{memory:.0f}")
        console.print(table)
        both = found["load", "layergraph"][0] / found["load", "safetensors + meta"][0]
        console.print(f"load_model takes {both:.2f} times as long as load_file and meta together")
    return 0


if __name__ == "__main__":
    sys.exit(main())
