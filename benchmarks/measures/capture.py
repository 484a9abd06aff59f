"""Capture without inputs, compared with torch.fx; capture by running, compared with one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import fx

import layergraph as lg
from benchmarks.models import call_count, with_inputs
from benchmarks.results import Row, compared, mean
from benchmarks.settings import Settings
from benchmarks.timing import take_turns

TRACED_AT_MOST = 1.5
RUN_FORWARDS, RUN_PER_CALL = 1.2, 0.0001
MODES = ("own", "both")


def rows(settings: Settings) -> Iterator[Row]:
    yield from _traced(settings)
    yield from _run(settings)


def _traced(settings: Settings) -> Iterator[Row]:
    found: dict[str, list[Row]] = {modes: [] for modes in MODES}
    for entry in settings.entries("torchvision"):
        model = entry.model()
        ways = {
            "torch.fx.symbolic_trace": lambda model=model: fx.symbolic_trace(model),
            "own": lambda model=model: lg.to_ir(model, modes="own"),
            "both": lambda model=model: lg.to_ir(model),
        }
        timed = take_turns(ways, rounds=settings.rounds, patience=settings.patience)
        for modes in MODES:
            row = compared(
                f"without inputs, {modes}",
                entry.name,
                timed,
                (modes, "torch.fx.symbolic_trace"),
                at_most=TRACED_AT_MOST,
            )
            found[modes].append(row)
            yield row
    for modes in MODES:
        yield from mean(f"without inputs, {modes}", found[modes], at_most=TRACED_AT_MOST)


def _run(settings: Settings) -> Iterator[Row]:
    for entry in settings.entries():
        model, args, kwargs = with_inputs(entry)

        def forward(model=model, args=args, kwargs=kwargs) -> object:
            with torch.no_grad():
                return model(*args, **kwargs)

        def captured(modes, model=model, args=args, kwargs=kwargs) -> lg.Ir:
            with torch.no_grad():
                return lg.to_ir(model, args, kwargs, values="assume", modes=modes)

        ways = {"forward": forward} | {
            modes: lambda modes=modes: captured(modes) for modes in MODES
        }
        timed = take_turns(ways, rounds=settings.rounds, patience=settings.patience)
        for modes in MODES:
            row = compared(f"by running, {modes}", entry.name, timed, (modes, "forward"))
            if row.ratio is not None:
                calls = call_count(captured(modes))
                allowed = RUN_PER_CALL * calls
                ratio = timed.keep(modes, "forward").ratio_to(
                    modes, lambda taken, allowed=allowed: RUN_FORWARDS * taken["forward"] + allowed
                )
                peer = f"{RUN_FORWARDS} forward + {1000 * RUN_PER_CALL:.1f} ms x {calls} calls"
                forward_ratio = timed[modes].median / timed["forward"].median
                note = f"{forward_ratio:.2f} times the forward"
                row = replace(row, peer=peer, ratio=ratio, at_most=1.0, note=note)
            yield row
