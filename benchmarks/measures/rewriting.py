"""Matches of linear and relu: how many are found, and the time against nodes; and a whole rewrite.

Of five layers, two are a pair. Peers see the same model: torch.fx as its graph of modules, networkx
and rustworkx as a graph whose nodes have the types of layers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from torch import fx, nn
from torch.fx.passes.utils.matcher_utils import SubgraphMatcher

import layergraph as lg
from benchmarks.results import Row
from benchmarks.settings import Settings
from benchmarks.timing import Spread, exponent, take_turns
from layergraph_rewrite import apply_rules, layer

SIZES = (100, 1_000, 10_000, 100_000)
PEER_LARGEST = 10_000
AT_MOST = 1.1
PATIENCE = 5.0
OURS = "find_matches"


class Pair(nn.Module):
    """The pattern of the peers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.relu = nn.Linear(2, 2), nn.ReLU()

    def forward(self, x: Any) -> Any:
        return self.relu(self.linear(x))


def rows(settings: Settings) -> Iterator[Row]:
    curves: dict[str, list[tuple[float, float]]] = {}
    counts: dict[str, list[str]] = {}
    ratios: dict[str, Spread] = {}
    for size in (each for each in SIZES if each <= settings.largest):
        ways = _ways(size)
        found: dict[str, Any] = {}
        timed = take_turns(
            ways,
            rounds=3,
            patience=PATIENCE,
            check=found.__setitem__,
            clock=time.process_time,
        )
        for name, taken in timed.seconds.items():
            if not taken:
                counts.setdefault(name, []).append(timed.refusals.get(name, "no"))
                continue
            spread = Spread.of(taken)
            curves.setdefault(name, []).append((size, spread.median))
            counts.setdefault(name, []).append(f"{found.get(name)} of {size // 5}")
            if name != OURS:
                ratios[name] = Spread.exactly(Spread.of(timed.seconds[OURS]).median / spread.median)
    for name, points in curves.items():
        slope = Spread.exactly(exponent(points)) if len(points) > 1 else None
        is_ours = name in (OURS, "rewrite")
        yield Row(
            "nodes to seconds, exponent",
            name,
            slope,
            at_most=AT_MOST if is_ours else None,
            unit="",
            note="found " + ", ".join(counts[name]),
            points=tuple(points),
        )
        if not is_ours:
            yield Row("find_matches to peer, seconds", name, peer=name, ratio=ratios[name], unit="")


def _pattern(x: Any) -> Any:
    return layer("relu")(layer("linear", name="fc")(x))


def _ways(size: int) -> dict[str, Callable[[], object]]:
    kinds = [nn.Linear, nn.ReLU, nn.Tanh, nn.Identity, nn.GELU]
    model = nn.Sequential(
        *[kind(2, 2) if kind is nn.Linear else kind() for _ in range(size // 5) for kind in kinds]
    )
    ir, state = lg.to_ir(model), model.state_dict()
    edit = lg.edit(ir)
    rule = lg.Rule(_pattern, lambda match: layer("silu")(match["fc"]))

    def rewritten() -> int:
        fresh = lg.edit(ir, state)
        apply_rules(fresh, [rule])
        return len(fresh.report.applied)

    ways: dict[str, Callable[[], object]] = {
        OURS: lambda: len(lg.find_matches(edit, _pattern)),
        "rewrite": rewritten,
    }
    if size <= PEER_LARGEST:
        traced = fx.symbolic_trace(model)
        pattern = fx.symbolic_trace(Pair())
        ways["torch.fx SubgraphMatcher"] = lambda: len(
            SubgraphMatcher(pattern.graph).match(traced.graph)
        )
        ways["torch.fx replace_pattern"] = lambda: len(
            fx.replace_pattern(fx.symbolic_trace(model), Pair(), nn.SiLU())
        )
        for name in ("networkx", "rustworkx"):
            ways |= _of_graphs(name, ir)
    return ways


def _of_graphs(name: str, ir: lg.Ir) -> dict[str, Callable[[], object]]:
    """Return a matcher of graphs, if it is installed."""
    try:
        module = import_module(name)
        import_module(f"{name}.algorithms.isomorphism") if name == "networkx" else None
    except ImportError:
        return {}
    graph = ir["root"]
    types = [node.type for node in graph.nodes.values()]
    places = {node: index for index, node in enumerate(graph.nodes)}
    edges = [(places[src], places[sink]) for src, sink in graph.edges]
    if name == "rustworkx":
        big, small = module.PyDiGraph(), module.PyDiGraph()
        big.add_nodes_from(types)
        big.add_edges_from_no_data(edges)
        small.add_nodes_from(["linear", "relu"])
        small.add_edges_from_no_data([(0, 1)])
        return {
            name: lambda: sum(
                1
                for _ in module.vf2_mapping(
                    big, small, node_matcher=lambda a, b: a == b, subgraph=True, induced=True
                )
            )
        }
    big, small = module.DiGraph(edges), module.DiGraph([(0, 1)])
    for index, kind in enumerate(types):
        big.add_node(index, kind=kind)
    small.add_node(0, kind="linear")
    small.add_node(1, kind="relu")

    def found() -> int:
        matcher = module.algorithms.isomorphism.DiGraphMatcher(
            big, small, node_match=lambda a, b: a["kind"] == b["kind"]
        )
        return sum(1 for _ in matcher.subgraph_isomorphisms_iter())

    return {name: found}
