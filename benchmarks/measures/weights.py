"""Files of a gigabyte, saved and loaded by layergraph and by peers.

Each tool has a separate process to measure its peak memory. Another process measures loading, in
which the tools take turns.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import layergraph as lg
from benchmarks.fresh import FreshError, forget_peak, peak_memory, run_function
from benchmarks.large import MODELS, small
from benchmarks.models import tensors
from benchmarks.results import Row, compared
from benchmarks.settings import Settings
from benchmarks.timing import Spread, Timed, refusal, take_turns
from layergraph.api import default_ir2torch

LOAD_AT_MOST = 1.3
MEMORY_AT_MOST = 1.1
MIB = 2**20
ON_META = "safetensors and meta"
PEERS = {"save": ("torch", "safetensors", "export"), "load": (ON_META, "torch", "export")}


def rows(settings: Settings) -> Iterator[Row]:
    names = ("few",) if settings.quick else ("many small", "few large")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            run_function(write, name, folder)
            for what in ("save", "load"):
                ways = ("layergraph", *PEERS[what])
                seconds, refusals = run_function(
                    seconds_of, what, name, folder, settings.rounds, settings.patience
                )
                timed = Timed(seconds, refusals)
                for peer in ways[1:]:
                    goal = LOAD_AT_MOST if peer == ON_META else None
                    yield compared(what, name, timed, ("layergraph", peer), at_most=goal)
            weights = (Path(folder) / "plain.safetensors").stat().st_size
            for what in ("save", "load", "load and read"):
                yield from _memory(what, name, folder, weights)


def _memory(what: str, name: str, folder: str, weights: int) -> Iterator[Row]:
    for way in ("layergraph", *PEERS[what.partition(" ")[0]]):
        try:
            taken = run_function(memory_of, what, way, name, folder)
        except FreshError as error:
            yield Row(f"memory to {what}", name, peer=way, note=refusal(error))
            continue
        mine, all_weights = Spread.exactly(taken / MIB), Spread.exactly(weights / MIB)
        share = Spread.exactly(taken / weights)
        if way == "layergraph":
            goal = MEMORY_AT_MOST
            yield Row(
                f"memory to {what}", name, mine, "the weights", all_weights, share, goal, "MiB"
            )
        else:
            note = f"{share.median:.2f} of the weights"
            yield Row(f"memory to {what}", name, None, way, mine, unit="MiB", note=note)


def write(name: str, folder: str) -> None:
    """Write the files to load, one in the format of each tool."""
    make, width = MODELS[name]
    place, model = Path(folder), make().eval()
    lg.save(lg.to_ir(model), place / "layergraph.safetensors", model.state_dict())
    safetensors.torch.save_file(model.state_dict(), place / "plain.safetensors")
    torch.save(model, place / "torch.pt")
    program = torch.export.export(model, (torch.zeros(1, width),))
    torch.export.save(program, place / "export.pt2")
    tiny = small()
    lg.save(lg.to_ir(tiny), place / "small.safetensors", tiny.state_dict())


def seconds_of(what: str, name: str, folder: str, rounds: int, patience: float) -> tuple[Any, Any]:
    ways = {
        way: prepare(name, Path(folder))
        for way, prepare in (_saves() if what == "save" else _loads()).items()
    }
    timed = take_turns(ways, rounds=rounds, patience=patience, settle=os.sync)
    return timed.seconds, timed.refusals


def memory_of(what: str, way: str, name: str, folder: str) -> int:
    """Return the peak growth of memory in bytes."""
    action = (_saves() if what == "save" else _loads())[way](name, Path(folder))
    lg.load_model(Path(folder) / "small.safetensors")
    before = forget_peak()
    given = action()
    if what == "load and read":
        for tensor in _weights(given):
            tensor.sum()
    return max(0, peak_memory() - before)


def _weights(given: Any) -> list[torch.Tensor]:
    if callable(getattr(given, "state_dict", None)):
        return tensors(given.state_dict())
    return tensors(getattr(given, "state_dict", given))


Prepare = Callable[[str, Path], Callable[[], object]]


def _saves() -> dict[str, Prepare]:
    def with_layergraph(name: str, folder: Path) -> Callable[[], object]:
        model = MODELS[name][0]().eval()
        ir, state = lg.to_ir(model), model.state_dict()
        return lambda: lg.save(ir, folder / "saved.safetensors", state)

    def with_torch(name: str, folder: Path) -> Callable[[], object]:
        model = MODELS[name][0]().eval()
        return lambda: torch.save(model, folder / "saved.pt")

    def with_safetensors(name: str, folder: Path) -> Callable[[], object]:
        state = MODELS[name][0]().eval().state_dict()
        return lambda: safetensors.torch.save_file(state, folder / "saved-plain.safetensors")

    def with_export(name: str, folder: Path) -> Callable[[], object]:
        make, width = MODELS[name]
        program = torch.export.export(make().eval(), (torch.zeros(1, width),))
        return lambda: torch.export.save(program, folder / "saved.pt2")

    return {
        "layergraph": with_layergraph,
        "torch": with_torch,
        "safetensors": with_safetensors,
        "export": with_export,
    }


def _loads() -> dict[str, Prepare]:
    def with_layergraph(_: str, folder: Path) -> Callable[[], object]:
        return lambda: lg.load_model(folder / "layergraph.safetensors")

    def on_meta(_: str, folder: Path) -> Callable[[], object]:
        ir, converter = lg.load(folder / "layergraph.safetensors"), default_ir2torch()
        return lambda: {
            **safetensors.torch.load_file(folder / "plain.safetensors"),
            "": converter.convert(ir, device="meta"),
        }

    def with_torch(_: str, folder: Path) -> Callable[[], object]:
        return lambda: torch.load(folder / "torch.pt", weights_only=False)

    def with_export(_: str, folder: Path) -> Callable[[], object]:
        return lambda: torch.export.load(folder / "export.pt2")

    return {
        "layergraph": with_layergraph,
        ON_META: on_meta,
        "torch": with_torch,
        "export": with_export,
    }
