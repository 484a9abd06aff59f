"""Capture, save with weights, load: the whole way, beside everything that can go it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.models import assert_close, with_inputs
from benchmarks.peers import PEERS, layergraph, layergraph_own
from benchmarks.results import Row, compared, mean
from benchmarks.settings import Settings
from benchmarks.timing import take_turns

EXPORT = "torch.export"
EXPORT_AT_MOST = 1 / 20
# A part of the work, so that no goal is to be quicker: files are held to it by themselves.
PARTIAL = ("safetensors, weights alone",)
OURS = {"both": layergraph, "own": layergraph_own}


def rows(settings: Settings) -> Iterator[Row]:
    found: dict[tuple[str, str], list[Row]] = {}
    for name, model, args, kwargs in _models(settings):
        with torch.no_grad():
            timed = _timed(settings, model, args, kwargs)
        for peer in PEERS:
            for modes in OURS:
                row = compared(
                    f"{modes} modes" if modes == "both" else "own mode",
                    name,
                    timed,
                    (modes, peer),
                    at_most=None if peer in PARTIAL else 1.0,
                )
                found.setdefault((modes, peer), []).append(row)
                if modes == "both" or row.ratio is not None:
                    yield row
    for (modes, peer), each in found.items():
        goal = EXPORT_AT_MOST if peer == EXPORT else None
        what = f"{modes} modes" if modes == "both" else "own mode"
        of_the_zoo = [row for row in each if "/" in row.model]
        yield from mean(what, of_the_zoo, at_most=goal)


def _timed(settings: Settings, model: nn.Module, args: Any, kwargs: Any) -> Any:
    expected = model(*args, **kwargs)

    def check(_: str, back: Any) -> None:
        assert_close(expected, back(*args, **kwargs))

    with tempfile.TemporaryDirectory() as folder:
        ways = {
            name: partial(way, model, args, kwargs, Path(folder))
            for name, way in {**OURS, **PEERS}.items()
        }
        return take_turns(
            ways, rounds=settings.rounds, patience=settings.patience, check=check, settle=os.sync
        )


def _models(
    settings: Settings,
) -> Iterator[tuple[str, nn.Module, tuple[Any, ...], dict[str, Any]]]:
    if settings.pattern is None:
        # What the peers that know few layers can do.
        plain = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
        yield "perceptron", plain, (torch.randn(2, 64),), {}
        linear = nn.Sequential(*[nn.Linear(64, 64, bias=False) for _ in range(4)]).eval()
        yield "linear layers", linear, (torch.randn(2, 64),), {}
    for entry in settings.entries():
        yield entry.name, *with_inputs(entry)
