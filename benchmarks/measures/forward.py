"""The run time of the rebuilt model, compared with the original with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

import layergraph as lg
from benchmarks.models import captured
from benchmarks.results import Row, compared, mean
from benchmarks.settings import Settings
from benchmarks.timing import take_turns
from layergraph.errors import LayergraphError
from zoo import Entry

AT_MOST = 1.02
# The seconds of one turn, which makes several runs to reduce noise of clock and scheduler.
TURN = 0.1
ROUNDS = 25


def rows(settings: Settings) -> Iterator[Row]:
    found = []
    for entry in settings.entries():
        try:
            original, rebuilt, args, kwargs = pair(entry)
        except LayergraphError as error:
            yield Row("eager", entry.name, note=f"no: {type(error).__name__}")
            continue
        run = partial(_run, args=args, kwargs=kwargs)
        single = take_turns({"original": partial(run, original, 1)}, rounds=3)["original"].median
        repeated = max(1, round(TURN / single))
        ways = {
            "rebuilt": partial(run, rebuilt, repeated),
            "original": partial(run, original, repeated),
        }
        rounds = 9 if settings.quick else ROUNDS
        timed = take_turns(ways, rounds=rounds, patience=2 * settings.patience)
        row = compared("eager", entry.name, timed, ("rebuilt", "original"), at_most=AT_MOST)
        found.append(row)
        yield row
    yield from mean("eager", found, at_most=AT_MOST)


def pair(entry: Entry) -> tuple[nn.Module, nn.Module, tuple[Any, ...], dict[str, Any]]:
    """Return the original, the rebuilt model, and their inputs."""
    model, args, kwargs, ir = captured(entry)
    return model, lg.to_torch(ir, model.state_dict()).eval(), args, kwargs


def _run(model: nn.Module, times: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with torch.no_grad():
        for _ in range(times):
            model(*args, **kwargs)
