"""Seconds of the steps on an existing IR, which no peer has as separate steps."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

import layergraph as lg
from benchmarks.models import call_count, captured
from benchmarks.results import Row, compared
from benchmarks.settings import Settings
from benchmarks.timing import Way, take_turns
from layergraph.errors import LayergraphError


def rows(settings: Settings) -> Iterator[Row]:
    for entry in settings.entries():
        try:
            model, args, kwargs, ir = captured(entry)
        except LayergraphError as error:
            yield Row("all", entry.name, note=f"no: {type(error).__name__}")
            continue
        form = ir.to_dict()
        with tempfile.TemporaryDirectory() as folder:
            path, whole = Path(folder) / "model.json", Path(folder) / "model.safetensors"
            ways: dict[str, Way] = {
                "capture": partial(lg.to_ir, model, args, kwargs, values="assume"),
                "to dict": ir.to_dict,
                "from dict": partial(lg.Ir.from_dict, form),
                "to file": partial(lg.save, ir, path),
                "from file": partial(lg.load, path),
                "to file with weights": partial(lg.save, ir, whole, model.state_dict()),
                "load_model": partial(lg.load_model, whole),
            }
            with torch.no_grad():
                timed = take_turns(ways, rounds=settings.rounds, patience=settings.patience)
        for step in list(ways)[1:]:
            yield compared(
                step, entry.name, timed, (step, "capture"), note=f"{call_count(ir)} calls"
            )
