"""The maximum nesting depth of modules at Python's default recursion limit.

Names are paths, so the text of all names grows with the square of the depth, also in torch's state
dict; this measure is about recursion only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import fx, nn

import layergraph as lg
from benchmarks.fresh import FreshError, run_function
from benchmarks.results import Row
from benchmarks.settings import Settings
from benchmarks.shapes import example, tower
from benchmarks.timing import Spread, refusal

DEEPEST = 5_000
# A function that prepares a step for a model, and returns the function that makes the step.
Step = Callable[[nn.Module], Callable[[], object]]
TORCH: dict[str, Step] = {
    "torch: state_dict": lambda model: model.state_dict,
    "torch: module.to": lambda model: lambda: model.to(torch.float64),
    "torch: repr": lambda model: lambda: repr(model),
    "torch: forward": lambda model: lambda: model(example()),
    "torch.save": lambda model: lambda: torch.save(model, _path("model.pt")),
    "torch.fx.symbolic_trace": lambda model: lambda: fx.symbolic_trace(model),
    "torch.export": lambda model: lambda: torch.export.export(model, (example(),)),
}
LAYERGRAPH: dict[str, Step] = {
    "capture without inputs": lambda model: lambda: lg.to_ir(model),
    "capture by running": lambda model: lambda: lg.to_ir(model, (example(),)),
    "to dict": lambda model: lg.to_ir(model).to_dict,
    "from dict": lambda model: _form_read(lg.to_ir(model).to_dict()),
    "save": lambda model: _saved(lg.to_ir(model)),
    "load": lambda model: _loaded(lg.to_ir(model)),
    "flatten": lambda model: lg.to_ir(model).flatten,
    "rebuild": lambda model: _rebuilt(lg.to_ir(model)),
}


def rows(settings: Settings) -> Iterator[Row]:
    most = 500 if settings.quick else DEEPEST
    for steps in (TORCH, LAYERGRAPH):
        try:
            found = run_function(deepest_of_each, list(steps), most)
        except FreshError as error:  # If C code recurses, the process may crash.
            yield Row(", ".join(steps), "one in another", note=refusal(error))
            continue
        for step, (levels, why) in found.items():
            yield Row(step, "one in another", Spread.exactly(levels), unit="levels", note=why)


def deepest_of_each(steps: list[str], most: int) -> dict[str, tuple[int, str]]:
    return {step: _deepest(step, most) for step in steps}


def _deepest(step: str, most: int) -> tuple[int, str]:
    """Return the most levels with which a step succeeds, and the error beyond."""
    good, bad, why = 0, most + 1, f"tried up to {most:,}"
    tried = most
    while bad - good > 1:
        failed = _failure(step, tried)
        if failed:
            bad, why = tried, f"beyond: {failed}"
        else:
            good = tried
        tried = (good + bad) // 2
    return good, why


def _failure(step: str, levels: int) -> str:
    way = {**TORCH, **LAYERGRAPH}[step](tower(levels))
    try:
        way()
    except Exception as error:
        return refusal(error)
    return ""


def _path(name: str) -> Path:
    return Path(tempfile.gettempdir()) / f"layergraph-depth-{name}"


def _form_read(form: dict[str, dict[str, object]]) -> Callable[[], object]:
    return lambda: lg.Ir.from_dict(form)


def _saved(ir: lg.Ir) -> Callable[[], object]:
    return lambda: lg.save(ir, _path("model.json"))


def _loaded(ir: lg.Ir) -> Callable[[], object]:
    lg.save(ir, _path("model.json"))
    return lambda: lg.load(_path("model.json"))


def _rebuilt(ir: lg.Ir) -> Callable[[], object]:
    return lambda: lg.to_torch(ir, device="meta")
