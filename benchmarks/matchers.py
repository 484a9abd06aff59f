"""Searches for pairs of linear and relu in a graph, by layergraph and by peers.

The model is a sequence of layers. torch.fx gets its graph of modules; networkx, rustworkx and
elastic-ai.creator get a graph whose nodes have the types of layers.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from torch import fx, nn
from torch.fx.passes.utils.matcher_utils import SubgraphMatcher

import layergraph as lg
from benchmarks.creator_python import creator_python
from layergraph_rewrite import apply_rules, layer

Pairs = list[tuple[int, int]]
"""The places of the two layers of each pair in the sequence."""

OURS = "find_matches"
REWRITE = "rewrite"
CREATOR = Path(__file__).parent / "creator_matches.py"


class Way(NamedTuple):
    """A way to find pairs.

    Attributes:
        find: the timed function.
        pairs: returns the pairs in its result.
    """

    find: Callable[[], Any]
    pairs: Callable[[Any], Pairs]


class Pair(nn.Module):
    """The pattern of torch.fx."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.relu = nn.Linear(2, 2), nn.ReLU()

    def forward(self, x: Any) -> Any:
        return self.relu(self.linear(x))


def sequence(size: int) -> nn.Sequential:
    """A model of so many layers, of which two in five are a pair."""
    kinds = [nn.Linear, nn.ReLU, nn.Tanh, nn.Identity, nn.GELU]
    return nn.Sequential(
        *[kind(2, 2) if kind is nn.Linear else kind() for _ in range(size // 5) for kind in kinds]
    )


def pairs_of(size: int) -> Pairs:
    """Return the true pairs."""
    return [(place, place + 1) for place in range(0, size, 5)]


def ways_of_ours(model: nn.Module) -> dict[str, Way]:
    ir, state = lg.to_ir(model), model.state_dict()
    edit = lg.edit(ir)
    rule = lg.Rule(_pattern, lambda match: layer("silu")(match["fc"]))

    def rewritten() -> list[int]:
        fresh = lg.edit(ir, state)
        apply_rules(fresh, [rule])
        return [_place(each.site.node) for each in fresh.report.applied]

    return {
        OURS: Way(
            lambda: lg.find_matches(edit, _pattern),
            lambda found: [(int(each["fc"].layer), int(each.root.layer)) for each in found],
        ),
        REWRITE: Way(rewritten, lambda found: [(place - 1, place) for place in found]),
    }


def _pattern(x: Any) -> Any:
    return layer("relu")(layer("linear", name="fc")(x))


def ways_of_peers(model: nn.Module) -> dict[str, Way]:
    """The ways of the peers that are installed, in this process."""
    ir = lg.to_ir(model)
    traced, pattern = fx.symbolic_trace(model), fx.symbolic_trace(Pair())
    ways = {
        "torch.fx SubgraphMatcher": Way(
            lambda: SubgraphMatcher(pattern.graph).match(traced.graph), _pairs_of_fx
        ),
        "torch.fx replace_pattern": Way(
            lambda: fx.replace_pattern(fx.symbolic_trace(model), Pair(), nn.SiLU()), _pairs_of_fx
        ),
    }
    for name, make in (("networkx", _networkx), ("rustworkx", _rustworkx)):
        try:
            ways[name] = make(ir)
        except ImportError:
            continue
    return ways


def _pairs_of_fx(found: Iterable[Any]) -> Pairs:
    modules = (
        [int(node.target) for node in each.nodes_map.values() if node.op == "call_module"]
        for each in found
    )
    return [(min(each), max(each)) for each in modules]


def _place(node: str) -> int:
    """The place of a layer by the name of its node."""
    return int(node.removeprefix("_"))


def _networkx(ir: lg.Ir) -> Way:
    networkx = import_module("networkx")
    isomorphism = import_module("networkx.algorithms.isomorphism")
    graph = ir["root"]
    big, small = networkx.DiGraph(list(graph.edges)), networkx.DiGraph([("linear", "relu")])
    for name, node in graph.nodes.items():
        big.add_node(name, kind=node.type)
    for kind in small:
        small.add_node(kind, kind=kind)

    def find() -> list[Any]:
        matcher = isomorphism.DiGraphMatcher(
            big, small, node_match=lambda a, b: a["kind"] == b["kind"]
        )
        return list(matcher.subgraph_isomorphisms_iter())

    def pairs(found: list[Any]) -> Pairs:
        named = ({kind: name for name, kind in each.items()} for each in found)
        return [(_place(each["linear"]), _place(each["relu"])) for each in named]

    return Way(find, pairs)


def _rustworkx(ir: lg.Ir) -> Way:
    rustworkx = import_module("rustworkx")
    graph = ir["root"]
    names = list(graph.nodes)
    places = {node: index for index, node in enumerate(names)}
    big, small = rustworkx.PyDiGraph(), rustworkx.PyDiGraph()
    big.add_nodes_from([node.type for node in graph.nodes.values()])
    big.add_edges_from_no_data([(places[src], places[sink]) for src, sink in graph.edges])
    small.add_nodes_from(["linear", "relu"])
    small.add_edges_from_no_data([(0, 1)])

    def find() -> list[Any]:
        options = {"subgraph": True, "induced": True}
        found = rustworkx.vf2_mapping(big, small, node_matcher=lambda a, b: a == b, **options)
        return list(found)

    def pairs(found: list[Any]) -> Pairs:
        named = ({mine: names[place] for place, mine in each.items()} for each in found)
        return [(_place(each[0]), _place(each[1])) for each in named]

    return Way(find, pairs)


def creator(kind: str, model: nn.Module, seed: int) -> tuple[float, Pairs]:
    """Seconds of elastic-ai.creator under a seed of hashes, and the pairs.

    Args:
        kind: ``"find_all_subgraphs"``, for the pairs that it finds; ``"PatternRule"``, for those
            that one application of a rule replaces.
        model: the model.
        seed: the seed of hashes.

    Raises:
        RuntimeError: the process failed, or no Python was found that can import it.
    """
    graph = lg.to_ir(model)["root"]
    types = {name: node.type for name, node in graph.nodes.items()}
    done = subprocess.run(
        [creator_python(), str(CREATOR), kind],
        input=json.dumps({"types": types, "edges": list(graph.edges)}),
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    said = json.loads(done.stdout)
    return said["seconds"], [(_place(one), _place(other)) for one, other in said["pairs"]]
