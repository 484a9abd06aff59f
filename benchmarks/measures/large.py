"""Transformers of billions of parameters, each in separate processes to measure peak memory."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import layergraph as lg
from benchmarks import large
from benchmarks.fresh import forget_peak, peak_memory, run_function
from benchmarks.models import tensors
from benchmarks.results import Row
from benchmarks.settings import Settings
from benchmarks.timing import Spread, once, take_turns
from layergraph.api import default_ir2torch

MIB = 2**20
META_SECONDS, META_MEMORY = 60.0, 4 * 1024
LOAD_AT_MOST, MEMORY_AT_MOST = 1.3, 1.1


def rows(settings: Settings) -> Iterator[Row]:
    yield from _on_meta()
    name, make = ("0.1 B", "llama_tenth") if settings.quick else ("1.3 B", "llama_1b")
    with tempfile.TemporaryDirectory() as folder:
        yield from _with_weights(name, make, Path(folder) / "model.safetensors")


def _on_meta() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        seconds, memory, parameters, size = run_function(on_meta, str(Path(folder) / "model.json"))
    name = f"{parameters / 1e9:.0f} B"
    for step, taken in seconds.items():
        yield Row(step, name, Spread.exactly(taken))
    total = Spread.exactly(sum(seconds.values()))
    note = f"the structure's file has {size / MIB:.1f} MiB"
    yield Row("all steps", name, total, at_most=META_SECONDS, note=note)
    most = Spread.exactly(memory / MIB)
    yield Row("memory of the process", name, most, at_most=META_MEMORY, unit="MiB")


def on_meta(path: str) -> tuple[dict[str, float], int, int, int]:
    """Return the seconds of each step, the peak memory of the process, and the sizes."""
    model = large.llama_70b()
    seconds: dict[str, float] = {}
    ir = _step(seconds, "capture", lambda: lg.to_ir(model, (), large.text("meta"), values="assume"))
    _step(seconds, "save", lambda: lg.save(ir, path))
    loaded = _step(seconds, "load", lambda: lg.load(path))
    rebuilt = _step(seconds, "rebuild", lambda: lg.to_torch(loaded, device="meta"))
    if list(rebuilt.state_dict()) != list(model.state_dict()):
        raise AssertionError("the rebuilt model has other keys")
    parameters = sum(each.numel() for each in rebuilt.parameters())
    return seconds, peak_memory(), parameters, Path(path).stat().st_size


def _with_weights(name: str, make: str, path: Path) -> Iterator[Row]:
    seconds, memory, outputs = run_function(saved, make, str(path))
    for step, taken in seconds.items():
        yield Row(step, name, Spread.exactly(taken))
    weights = path.stat().st_size
    yield _share("memory to capture and save, besides the model", name, memory, weights, None)
    memory, same = run_function(loaded, str(path))
    note = "the same outputs, bit for bit" if same == outputs else "OTHER OUTPUTS"
    yield _share("memory to load and run", name, memory, weights, MEMORY_AT_MOST, note)
    timed = run_function(loads, str(path))
    ratio = Spread.of(
        [mine / peer for mine, peer in zip(timed["ours"], timed["theirs"], strict=True)]
    )
    yield Row(
        "load",
        name,
        Spread.of(timed["ours"]),
        "safetensors and meta",
        Spread.of(timed["theirs"]),
        ratio,
        LOAD_AT_MOST,
    )


def _share(
    what: str, name: str, memory: int, weights: int, goal: float | None, note: str = ""
) -> Row:
    mine, whole = Spread.exactly(memory / MIB), Spread.exactly(weights / MIB)
    ratio = Spread.exactly(memory / weights)
    return Row(what, name, mine, "the weights", whole, ratio, goal, "MiB", note)


def saved(make: str, path: str) -> tuple[dict[str, float], int, str]:
    """Return the seconds of capture, save and a run, the extra memory, a digest of the outputs."""
    model = getattr(large, make)()
    seconds: dict[str, float] = {}
    with torch.no_grad():
        outputs = _step(seconds, "forward", lambda: model(**large.text()))
        before = forget_peak()
        ir = _step(seconds, "capture", lambda: lg.to_ir(model, (), large.text(), values="assume"))
        _step(seconds, "save", lambda: lg.save(ir, path, model.state_dict()))
    return seconds, peak_memory() - before, _digest(tensors(outputs)[0])


def loaded(path: str) -> tuple[int, str]:
    """Return the memory of running a loaded model, and a digest of its outputs."""
    lg.to_torch(lg.to_ir(large.small()))
    before = forget_peak()
    model = lg.load_model(path).eval()
    with torch.no_grad():
        outputs = model(**large.text())
    return peak_memory() - before, _digest(tensors(outputs)[0])


def loads(path: str) -> dict[str, list[float]]:
    """Return the seconds to load, and those of the parts by peers."""
    ir, converter = lg.load(path), default_ir2torch()
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: lg.load_model(path),
        "theirs": lambda: (safetensors.torch.load_file(path), converter.convert(ir, device="meta")),
    }
    return take_turns(ways, rounds=7).seconds


def _step(seconds: dict[str, float], name: str, way: Callable[[], Any]) -> Any:
    seconds[name], given = once(way)
    return given


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.float().numpy().tobytes()).hexdigest()
