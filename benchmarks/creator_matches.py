"""Match and rewrite a graph with elastic-ai.creator, in a separate process.

    python benchmarks/creator_matches.py find_all_subgraphs|PatternRule < GRAPH

Its graphs need Python 3.12, and its results depend on the seed of hashes. So this program imports
neither layergraph nor torch. It reads JSON: the types of all nodes by name, and the edges. It
prints JSON: seconds, and the pairs of linear and relu that it finds, or that one application of a
rule replaces.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from elasticai.creator.graph import BaseGraph, find_all_subgraphs
from elasticai.creator.ir import Edge, Implementation, Node
from elasticai.creator.ir.rewriting import PatternRule, PatternRuleSpec, StdPattern

ANY = "any"


def implementation(types: dict[str, str], edges: list[list[str]]) -> Implementation[Node, Edge]:
    made = Implementation(graph=BaseGraph())
    for name, kind in types.items():
        made.add_node(Node(name, {"type": kind}))
    for src, sink in edges:
        made.add_edge(Edge(src, sink, {}))
    return made


def chain(*types: str) -> Any:
    edges = [[str(index), str(index + 1)] for index in range(len(types) - 1)]
    return implementation({str(index): kind for index, kind in enumerate(types)}, edges)


def is_like(pattern: Any, node: Any) -> bool:
    return pattern.type in (ANY, node.type)


def found(graph: Any) -> list[tuple[str, str]]:
    pattern = chain("linear", "relu")
    matches = find_all_subgraphs(
        graph=graph.graph,
        pattern=pattern.graph,
        node_constraint=lambda own, other: is_like(pattern.nodes[own], graph.nodes[other]),
    )
    return [(each["0"], each["1"]) for each in matches]


def rewritten(graph: Any) -> Any:
    pattern = StdPattern(chain(ANY, "linear", "relu", ANY), is_like, {"0", "3"})
    replacement = implementation(
        {"0": ANY, "silu": "silu", "3": ANY}, [["0", "silu"], ["silu", "3"]]
    )
    return PatternRule(PatternRuleSpec(pattern, lambda _: replacement))(graph)


def pairs(graph: Any) -> list[tuple[str, str]]:
    return [
        (src, sink)
        for src, sink in graph.graph.iter_edges()
        if (graph.nodes[src].type, graph.nodes[sink].type) == ("linear", "relu")
    ]


def main() -> None:
    graph = implementation(**json.load(sys.stdin))
    work = {"find_all_subgraphs": found, "PatternRule": rewritten}[sys.argv[1]]
    there = pairs(graph)
    start = time.process_time()
    result = work(graph)
    seconds = time.process_time() - start
    if work is rewritten:
        left = set(pairs(result))
        result = [pair for pair in there if pair not in left]
    json.dump({"seconds": seconds, "pairs": result}, sys.stdout)


if __name__ == "__main__":
    main()
