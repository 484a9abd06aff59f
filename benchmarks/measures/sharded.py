"""A model over several processes, loaded and saved in parts, compared with DCP and safetensors."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch.distributed.checkpoint as dcp

import layergraph as lg
from benchmarks.fresh import run_function, run_module
from benchmarks.large import MODELS
from benchmarks.results import Row
from benchmarks.settings import Settings
from benchmarks.timing import Spread

MIB = 2**20
PROCESSES = (1, 2, 4)
# The goals for the bytes that a process reads, and its memory, in units of its part.
BYTES_AT_MOST = 1.05


def rows(settings: Settings) -> Iterator[Row]:
    name, rounds = ("few", 2) if settings.quick else ("few large", 5)
    with tempfile.TemporaryDirectory() as folder:
        run_function(write, name, folder)
        weights = (Path(folder) / "model.safetensors").stat().st_size
        for count in PROCESSES:
            run_module(
                "torch.distributed.run",
                *("--standalone", "--nproc-per-node", str(count)),
                *("-m", "benchmarks.ranks", folder, str(rounds)),
            )
            paths = [Path(folder) / f"rank-{rank}.json" for rank in range(count)]
            found = [json.loads(path.read_text()) for path in paths]
            worst = {
                what: {unit: max(each[what][unit] for each in found) for unit in found[0][what]}
                for what in found[0]
            }
            yield from _rows(worst, count, weights / count)


def _rows(worst: dict[str, dict[str, float]], count: int, part: float) -> Iterator[Row]:
    model = f"{count} process{'es' * (count > 1)}"
    for way, taken in worst.items():
        what, _, peer = way.partition(" ")
        mine = worst[f"{what} layergraph"]
        if peer != "layergraph":
            ours, theirs = (Spread.exactly(each["seconds"]) for each in (mine, taken))
            ratio = Spread.exactly(mine["seconds"] / taken["seconds"])
            yield Row(what, model, ours, peer, theirs, ratio)
        for unit in ("bytes", "memory") if what == "load" else ("memory",):
            share = Spread.exactly(taken[unit] / part)
            amount, whole = Spread.exactly(taken[unit] / MIB), Spread.exactly(part / MIB)
            label = f"{unit} to {what}, each process"
            if peer == "layergraph":
                goal = BYTES_AT_MOST if unit == "bytes" else None
                yield Row(label, model, amount, "its part", whole, share, goal, "MiB")
            elif unit == "bytes" and peer == "safetensors":
                yield Row(label, model, None, peer, unit="MiB", note="it maps the file")
            else:
                note = f"{share.median:.2f} of its part"
                yield Row(label, model, None, peer, amount, unit="MiB", note=note)


def write(name: str, folder: str) -> None:
    """Write the files to load."""
    model = MODELS[name][0]().eval()
    lg.save(lg.to_ir(model), Path(folder) / "model.safetensors", model.state_dict())
    dcp.save(model.state_dict(), checkpoint_id=Path(folder) / "checkpoint")
    os.sync()
