"""The cost of capturing all ways of a model with decisions by numbers of its inputs.

A model without decisions has one way, so both captures do the same work.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

import layergraph as lg
from benchmarks.models import call_count, with_inputs
from benchmarks.results import Row, compared
from benchmarks.settings import Settings
from benchmarks.timing import Spread, take_turns
from layergraph.errors import LayergraphError

# The goals: the ratios of all ways to one way.
CAPTURE, SIZE, FORWARD = 2.0, 1.2, 1.05


def rows(settings: Settings) -> Iterator[Row]:
    for entry in settings.entries("transformers"):
        model, args, kwargs = with_inputs(entry)
        model.eval()
        try:
            with torch.no_grad():
                whole, one = (
                    lg.to_ir(model, args, kwargs, values=each) for each in ("both", "assume")
                )
        except LayergraphError as error:
            yield Row("all ways", entry.name, note=f"no: {type(error).__name__}")
            continue
        state = model.state_dict()
        models = {name: lg.to_torch(ir, state).eval() for name, ir in _named(whole, one)}
        ways = {
            "capture of all ways": partial(lg.to_ir, model, args, kwargs),
            "capture of one way": partial(lg.to_ir, model, args, kwargs, values="assume"),
            **{name: partial(each, *args, **kwargs) for name, each in models.items()},
        }
        with torch.no_grad():
            timed = take_turns(ways, rounds=settings.rounds, patience=settings.patience)
        decisions = sum(
            node.implementation in ("layergraph.truth", "layergraph.holds")
            for each in whole.values()
            for node in each.nodes.values()
        )
        note = f"{decisions} questions"
        yield compared(
            "capture",
            entry.name,
            timed,
            ("capture of all ways", "capture of one way"),
            at_most=CAPTURE,
            note=note,
        )
        yield compared(
            "forward",
            entry.name,
            timed,
            ("all ways", "one way"),
            at_most=FORWARD,
            note=note,
        )
        sizes = call_count(whole), call_count(one)
        yield Row(
            "calls",
            entry.name,
            ours=Spread.of([sizes[0]]),
            peer="one way",
            theirs=Spread.of([sizes[1]]),
            ratio=Spread.of([sizes[0] / sizes[1]]),
            at_most=SIZE,
            unit="",
            note=note,
        )


def _named(whole: lg.Ir, one: lg.Ir) -> list[tuple[str, lg.Ir]]:
    return [("all ways", whole), ("one way", one)]
