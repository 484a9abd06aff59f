"""Seconds of each step by number of layers. Each shape of model has a separate process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import fx, nn

import layergraph as lg
from benchmarks.fresh import FreshError, run_function
from benchmarks.results import Row
from benchmarks.settings import Settings
from benchmarks.shapes import SHAPES, example
from benchmarks.timing import Spread, exponent, refusal, take_turns

SIZES = (10, 100, 1_000, 3_000, 10_000, 30_000, 100_000)
FITTED_FROM = 1_000
AT_MOST = 1.1
PEER = "torch.fx.symbolic_trace"
# For more layers, torch.fx needs minutes.
PEER_LARGEST = 10_000
PATIENCE = 1.0


def rows(settings: Settings) -> Iterator[Row]:
    sizes = [size for size in SIZES if size <= settings.largest]
    for shape in SHAPES:
        curves: dict[str, list[tuple[float, float]]] = {}
        try:
            found, refused = run_function(measured, shape, sizes)
        except FreshError as error:
            yield Row("all", shape, note=refusal(error))
            continue
        for step, size, seconds in found:
            curves.setdefault(step, []).append((size, seconds))
        for step, points in curves.items():
            yield _row(step, shape, points, refused.get(step, ""))


def _row(step: str, shape: str, points: list[tuple[float, float]], note: str) -> Row:
    fitted = [each for each in points if each[0] >= FITTED_FROM]
    slope = Spread.exactly(exponent(fitted)) if len(fitted) > 1 else None
    size, seconds = points[-1]
    per_layer = f"{1e6 * seconds / size:.0f} µs a layer at {size:,.0f}"
    return Row(
        step,
        shape,
        slope,
        at_most=None if step == PEER else AT_MOST,
        unit="",
        note="; ".join(part for part in (per_layer, note) if part),
        points=tuple(points),
    )


def measured(shape: str, sizes: list[int]) -> tuple[list[tuple[str, int, float]], dict[str, str]]:
    """Return the median CPU seconds of each step at each size, and the failures."""
    found, refused = [], {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for size in sizes:
            model = SHAPES[shape](size).eval()
            ways = _steps(model, Path(folder), with_peer=size <= PEER_LARGEST)
            # The smaller sizes are the warm-up for the large one.
            timed = take_turns(
                ways,
                rounds=5,
                patience=PATIENCE,
                warm_up=size <= FITTED_FROM,
                clock=time.process_time,
            )
            found += [
                (step, size, Spread.of(taken).median) for step, taken in timed.seconds.items()
            ]
            refused.update({step: f"at {size}: {why}" for step, why in timed.refusals.items()})
    return found, refused


def _steps(model: nn.Module, folder: Path, *, with_peer: bool) -> dict[str, Callable[[], object]]:
    ir = lg.to_ir(model, (example(),))
    form, state = ir.to_dict(), model.state_dict()
    path, whole = folder / "model.json", folder / "model.safetensors"
    lg.save(ir, path)
    lg.save(ir, whole, state)
    peer = {PEER: lambda: fx.symbolic_trace(model)} if with_peer else {}
    return {
        "forward": lambda: model(example()),
        "capture without inputs": lambda: lg.to_ir(model),
        "capture by running": lambda: lg.to_ir(model, (example(),)),
        "to dict": ir.to_dict,
        "from dict": lambda: lg.Ir.from_dict(form),
        "save": lambda: lg.save(ir, path),
        "load": lambda: lg.load(path),
        "save with weights": lambda: lg.save(ir, whole, state),
        "load model": lambda: lg.load_model(whole),
        "flatten": ir.flatten,
        "rebuild": lambda: lg.to_torch(ir, device="meta"),
        **peer,
    }
