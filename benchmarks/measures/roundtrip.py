"""The round trip: capture, save with weights, load; compared with all peers that can do it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import layergraph as lg
from benchmarks.measures.rebuild import by_hand
from benchmarks.models import assert_close, with_inputs
from benchmarks.peers import (
    PEERS,
    Model,
    RoundTrip,
    layergraph,
    layergraph_own,
    layergraph_without_inputs,
    weights_alone,
)
from benchmarks.results import Row, compared, mean
from benchmarks.settings import Settings
from benchmarks.timing import take_turns

EXPORT = "torch.export"
EXPORT_AT_MOST = 1 / 20
# The unavoidable work of a round trip that runs the model, makes its layers and compiles its
# graphs.
PARTS = "its parts"
# Peers that do only a part of the work, so that no goal applies; the measure of files compares with
# these.
PARTIAL = ("safetensors, weights alone", PARTS)
OURS = {
    "both modes": layergraph,
    "own mode": layergraph_own,
    "without inputs": layergraph_without_inputs,
}


def rows(settings: Settings) -> Iterator[Row]:
    found: dict[tuple[str, str], list[Row]] = {}
    for name, model, args, kwargs in _models(settings):
        with torch.no_grad():
            timed = _timed(settings, model, args, kwargs)
        pairs = [(ours, peer) for peer in (*PEERS, PARTS) for ours in OURS]
        for ours, peer in [*pairs, (PARTS, EXPORT)]:
            at_most = None if {ours, peer} & {*PARTIAL} else 1.0
            row = compared(ours, name, timed, (ours, peer), at_most=at_most)
            found.setdefault((ours, peer), []).append(row)
            # Report only once why a peer cannot do it.
            if ours == "both modes" or row.ratio is not None:
                yield row
    for (ours, peer), each in found.items():
        goal = EXPORT_AT_MOST if peer == EXPORT and ours != PARTS else None
        of_the_zoo = [row for row in each if "/" in row.model]
        yield from mean(ours, of_the_zoo, at_most=goal)


def _timed(settings: Settings, model: nn.Module, args: Any, kwargs: Any) -> Any:
    expected = model(*args, **kwargs)

    def check(_: str, back: Any) -> None:
        assert_close(expected, back(*args, **kwargs))

    with tempfile.TemporaryDirectory() as folder:
        ways = {
            name: partial(way, model, args, kwargs, Path(folder))
            for name, way in {**OURS, **PEERS, PARTS: _parts(model, args, kwargs)}.items()
        }
        return take_turns(
            ways, rounds=settings.rounds, patience=settings.patience, check=check, settle=os.sync
        )


def _parts(model: nn.Module, args: Any, kwargs: Any) -> RoundTrip:
    """Measure the parts: one run, the file of weights, the layers' constructors, the graphs."""
    rebuild = by_hand(lg.to_ir(model, args, kwargs, values="assume", modes="own"))

    def parts(model: nn.Module, args: Any, kwargs: Any, at: Path) -> Model:
        model(*args, **kwargs)
        rebuild()
        return weights_alone(model, args, kwargs, at)

    return parts


def _models(
    settings: Settings,
) -> Iterator[tuple[str, nn.Module, tuple[Any, ...], dict[str, Any]]]:
    if settings.pattern is None:
        # A model for the peers that support few layers.
        plain = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
        yield "perceptron", plain, (torch.randn(2, 64),), {}
        linear = nn.Sequential(*[nn.Linear(64, 64, bias=False) for _ in range(4)]).eval()
        yield "linear layers", linear, (torch.randn(2, 64),), {}
    for entry in settings.entries():
        yield entry.name, *with_inputs(entry)
