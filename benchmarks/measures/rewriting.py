"""Matches of linear and relu: matches found, and seconds by number of nodes; rewrites and edits.

The number of nodes grows for each tool until a run exceeds the time limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

import layergraph as lg
from benchmarks.matchers import (
    OURS,
    REWRITE,
    Pairs,
    creator,
    pairs_of,
    sequence,
    ways_of_ours,
    ways_of_peers,
)
from benchmarks.results import Row
from benchmarks.settings import Settings
from benchmarks.timing import Spread, exponent, once, refusal, take_turns
from layergraph_rewrite import VALUE, Edit, function, layer

SIZES = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
AT_MOST = 1.1
PATIENCE = 5.0
CREATOR_PATIENCE = 1.0  # its time grows with the square of the nodes, or faster
SEEDS = 3
MANY, MANY_SECONDS = 5_000, 0.05
EDITS_SECONDS = 20.0


@dataclass
class Curve:
    """The matches and the seconds of a tool, by number of nodes."""

    points: list[tuple[float, float]] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)

    def is_spent(self, patience: float) -> bool:
        """Return whether the tool exceeded the time limit on the last graph, or failed."""
        return len(self.points) < len(self.verdicts) or self.points[-1][1] > patience


def rows(settings: Settings) -> Iterator[Row]:
    curves: dict[str, Curve] = {}
    sizes = [each for each in SIZES if each <= settings.largest]
    for size in sizes:
        _measure(size, curves)
    for size in sizes:
        _measure_creator(size, curves)
    for name, curve in curves.items():
        slope = Spread.exactly(exponent(curve.points)) if len(curve.points) > 1 else None
        is_ours = name in (OURS, REWRITE)
        yield Row(
            "nodes to seconds, exponent",
            name,
            slope,
            at_most=AT_MOST if is_ours else None,
            unit="",
            note="; ".join(curve.verdicts),
            points=tuple(curve.points),
        )
        known = dict(curves[OURS].points)
        if not is_ours and curve.points:
            most, taken = curve.points[-1]
            yield Row(
                "find_matches to peer, seconds",
                f"{most:,.0f} nodes",
                peer=name,
                ratio=Spread.exactly(known[most] / taken),
                unit="",
            )
    yield _many()
    yield from _edits(settings.largest)


def _verdict(pairs: Pairs, size: int) -> str:
    found, right = set(pairs), set(pairs_of(size))
    is_right = found == right and len(found) == len(pairs)
    return f"{len(pairs)} of {len(right)}{'' if is_right else ', WRONG'}"


def _measure(size: int, curves: dict[str, Curve]) -> None:
    model = sequence(size)
    ways = ways_of_ours(model) | ways_of_peers(model)
    for name in [name for name in ways if name in curves and curves[name].is_spent(PATIENCE)]:
        del ways[name]
    verdicts: dict[str, str] = {}

    def check(name: str, given: Any) -> None:
        verdicts[name] = _verdict(ways[name].pairs(given), size)

    timed = take_turns(
        {name: way.find for name, way in ways.items()},
        rounds=3,
        patience=PATIENCE,
        check=check,
        clock=time.process_time,
    )
    for name in ways:
        taken = timed.get(name)
        seconds = None if taken is None else taken.median
        _note(curves, name, size, seconds, verdicts.get(name, timed.refusals.get(name, "")))


def _measure_creator(size: int, curves: dict[str, Curve]) -> None:
    model = sequence(size)
    for kind in ("find_all_subgraphs", "PatternRule"):
        name = f"elastic-ai.creator {kind}"
        if name in curves and curves[name].is_spent(CREATOR_PATIENCE):
            continue
        try:
            runs = [creator(kind, model, seed) for seed in range(SEEDS)]
        except RuntimeError as failure:
            _note(curves, name, size, None, refusal(failure))
            continue
        verdicts = dict.fromkeys(_verdict(pairs, size) for _, pairs in runs)
        seconds = Spread.of([seconds for seconds, _ in runs]).median
        _note(curves, name, size, seconds, " or ".join(verdicts))


def _note(
    curves: dict[str, Curve], name: str, size: int, seconds: float | None, verdict: str
) -> None:
    curve = curves.setdefault(name, Curve())
    if seconds is not None:
        curve.points.append((size, seconds))
        verdict += f" in {seconds:.3g} s"
    curve.verdicts.append(f"{size:,}: {verdict}")


def _many() -> Row:
    """Measure a thousand matches in an open edit."""
    find = ways_of_ours(sequence(MANY))[OURS].find
    timed = take_turns({OURS: find}, rounds=9, clock=time.process_time)
    return Row(f"1,000 matches among {MANY:,} nodes", OURS, timed[OURS], at_most=MANY_SECONDS)


def _edits(largest: int) -> Iterator[Row]:
    """Measure as many edits of one kind as nodes, in an open edit."""
    found: dict[str, list[tuple[float, float]]] = {}
    for size in (each for each in SIZES[::2] if each <= largest):
        model = nn.Sequential(*[nn.ReLU() for _ in range(size)])
        ir, state = lg.to_ir(model), model.state_dict()
        for name, work in EDITS.items():
            edit = lg.edit(ir, state)
            seconds, _ = once(partial(_each, edit, work, range(size)), clock=time.process_time)
            found.setdefault(name, []).append((size, seconds))
    for name, points in found.items():
        most, taken = points[-1]
        yield Row(
            "edits to seconds, exponent",
            name,
            Spread.exactly(exponent(points)),
            at_most=AT_MOST,
            unit="",
            points=tuple(points),
        )
        yield Row(
            f"{most:,.0f} edits on {most:,.0f} nodes",
            name,
            Spread.exactly(taken),
            at_most=EDITS_SECONDS,
        )


def _each(edit: Edit, work: Callable[[Edit, str], object], places: Iterable[int]) -> None:
    for place in places:
        work(edit, str(place))


EDITS: dict[str, Callable[[Edit, str], object]] = {
    "insert a function": lambda edit, at: edit.insert_after(at, function("torch.neg")(VALUE)),
    "insert a layer": lambda edit, at: edit.insert_after(at, layer("tanh")),
    "remove": lambda edit, at: edit.remove(at),
    "replace": lambda edit, at: edit.replace(at, layer("tanh")),
    "rename": lambda edit, at: edit.rename(at, f"layer{at}"),
    "set an attribute": lambda edit, at: edit.set(at, inplace=True),
}
