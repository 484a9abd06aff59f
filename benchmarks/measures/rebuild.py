"""Rebuilding on meta, compared with the leaves' constructors and torch.fx for the same graphs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import fx

import layergraph as lg
from benchmarks.models import captured
from benchmarks.results import Row, compared, mean
from benchmarks.settings import Settings
from benchmarks.timing import Way, take_turns
from layergraph.errors import LayergraphError

AT_MOST = 1.5


def rows(settings: Settings) -> Iterator[Row]:
    found = []
    for entry in settings.entries():
        try:
            _, _, _, ir = captured(entry)
        except LayergraphError as error:
            yield Row("on meta", entry.name, note=f"no: {type(error).__name__}")
            continue
        ways: dict[str, Way] = {
            "to_torch": partial(lg.to_torch, ir, device="meta"),
            "constructors and torch.fx": by_hand(ir),
        }
        timed = take_turns(ways, rounds=settings.rounds, patience=settings.patience)
        row = compared(
            "on meta", entry.name, timed, ("to_torch", "constructors and torch.fx"), at_most=AT_MOST
        )
        found.append(row)
        yield row
    yield from mean("on meta", found, at_most=AT_MOST)


def by_hand(ir: lg.Ir) -> Way:
    """Return a function that only makes the leaves of an IR and compiles its graphs."""
    rebuilt = lg.to_torch(ir, device="meta")
    modules = dict(rebuilt.named_modules(remove_duplicate=False))
    constructors = []
    for name, implementation in ir.items():
        module = modules.get("" if name == ir.root else name)
        if implementation.children is None and not implementation.nodes and module is not None:
            constructors.append((type(module), implementation.data))
    composites = [each for each in rebuilt.modules() if isinstance(each, fx.GraphModule)]
    # GraphModule copies the members that its graph names from a root: the finished model.
    graphs = [(each, each.graph) for each in composites]
    graphs += [
        (each, each.evaluation.graph)
        for each in composites
        if getattr(each, "evaluation", None) is not None
    ]

    def build() -> object:
        with torch.device("meta"):
            leaves = [make(**attributes) for make, attributes in constructors]
        return leaves, [fx.GraphModule(members, graph) for members, graph in graphs]

    return build
