"""Graphs and graph breaks of torch.compile, for the rebuilt model and the original."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.measures.forward import AT_MOST, pair
from benchmarks.results import Row, compared
from benchmarks.settings import Settings
from benchmarks.timing import Spread, refusal, take_turns
from layergraph.errors import LayergraphError

# Compiling takes from half a minute to minutes.
TIMED = ("torchvision/resnet18", "transformers/BertModel")
QUICK = TIMED[1:]


def rows(settings: Settings) -> Iterator[Row]:
    timed = QUICK if settings.quick else TIMED
    for entry in settings.entries():
        try:
            original, rebuilt, args, kwargs = pair(entry)
        except LayergraphError as error:
            yield Row("graphs", entry.name, note=f"no: {type(error).__name__}")
            continue
        try:
            one, other = (counts(each, args, kwargs) for each in (rebuilt, original))
        except Exception as error:
            yield Row("graphs", entry.name, note=f"no: {refusal(error)}")
            continue
        for what, mine, theirs in zip(("graphs", "breaks"), one, other, strict=True):
            yield Row(
                what,
                entry.name,
                Spread.exactly(mine),
                "original",
                Spread.exactly(theirs),
                at_most=theirs,
                unit="",
            )
        if entry.name in timed:
            yield _latency(entry.name, original, rebuilt, args, kwargs)


def counts(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int]:
    """Return the numbers of graphs and of graph breaks of a model under torch.compile."""
    torch._dynamo.reset()
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
        found = torch._dynamo.explain(model)(*args, **kwargs)
    return found.graph_count, found.graph_break_count


def _latency(
    name: str, original: nn.Module, rebuilt: nn.Module, args: tuple[Any, ...], kwargs: Any
) -> Row:
    torch._dynamo.reset()

    def run(model: Any) -> None:
        with torch.no_grad():
            for _ in range(10):
                model(*args, **kwargs)

    ways = {
        "rebuilt": partial(run, torch.compile(rebuilt)),
        "original": partial(run, torch.compile(original)),
    }
    timed = take_turns(ways, rounds=15)
    return compared("latency", name, timed, ("rebuilt", "original"), at_most=AT_MOST)
