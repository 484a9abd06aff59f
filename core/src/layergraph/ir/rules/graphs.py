"""Rules of one graph: its edges, outputs, arguments, order and regions."""

from __future__ import annotations

from collections.abc import Callable

from layergraph.errors import Place
from layergraph.ir.graph import (
    FUNCTION,
    INPUT,
    OUTPUT,
    STATE,
    Graph,
    Implementation,
    Node,
)
from layergraph.ir.mapping import Implementations
from layergraph.ir.node_differences import differing
from layergraph.ir.regions import check_regions
from layergraph.ir.rules.conditions import check_conditions
from layergraph.ir.rules.problems import Problems, Where, graphs_of, place_of
from layergraph.ir.stated_arguments import stated_arguments
from layergraph.ir.values import Symbol, refs


def check_graphs(problems: Problems, ir: Implementations) -> None:
    """Check each graph, and that the graphs of both modes differ only where they may."""
    for implementation in ir.values():
        for place, graph in graphs_of(implementation):
            for rule in _GRAPH_RULES:
                rule(problems, place, graph)
        if implementation.evaluation is not None:
            _check_differences(problems, implementation, implementation.evaluation)


def _check_edges(problems: Problems, place: Place, graph: Graph) -> None:
    for src, sink in graph.edges:
        for end in (src, sink):
            if end not in graph.nodes:
                problems.add(
                    place.at("edge", (src, sink)),
                    f"there is no node {end!r}",
                    "add the node or remove the edge",
                )


def _check_outputs(problems: Problems, place: Place, graph: Graph) -> None:
    if not graph.nodes:
        return
    outputs = [node.name for node in graph.nodes.values() if node.type == OUTPUT]
    if len(outputs) != 1:
        problems.add(
            place,
            f"its graph has {len(outputs)} outputs" if outputs else "its graph has no output",
            "give it exactly one node of type output, which may return several values",
        )


def _check_nodes(problems: Problems, place: Place, graph: Graph) -> None:
    reads: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for src, sink in graph.edges:
        if sink in graph.nodes:
            reads[sink].append(src)
    for node in graph.nodes.values():
        _check_arguments(problems, (place, "node", node.name), graph, node, reads[node.name])


def _check_regions(problems: Problems, place: Place, graph: Graph) -> None:
    for name, message, remedy in check_regions(graph):
        problems.add((place, "node", name), message, remedy)


def _check_arguments(
    problems: Problems, place: Where, graph: Graph, node: Node, predecessors: list[str]
) -> None:
    if node.args is None and not node.kwargs and node.when is None:
        named = predecessors
        if len(named) > 1:
            listed = " and ".join(map(repr, named[:3])) + (" …" if len(named) > 3 else "")
            problems.add(
                place,
                f"it reads {listed}, and its arguments do not say which is which",
                f"give it args, as in ({', '.join(f'Ref({name!r})' for name in named[:2])})",
            )
    else:
        named = list(dict.fromkeys(node.sources()))
    for name in named:
        # Where an edge says the same as the arguments, the rule of edges reports it.
        is_said_twice = stated_arguments(node) is None and name in predecessors
        if name not in graph.nodes and not is_said_twice:
            problems.add(
                place,
                f"its {_naming(node, name)} {name!r}, which is no node here",
                "name one of the graph",
            )
        elif name in graph.nodes and graph.nodes[name].type == OUTPUT:
            problems.add(place, f"it reads {name!r}, an output", "read what the output returns")
    for name in [] if named is predecessors else sorted(set(named) ^ set(predecessors)):
        if name in named:
            problems.add(
                place,
                f"its {_naming(node, name)} {name!r}, but no edge comes from there",
                f"add the edge {(name, node.name)!r}",
            )
        else:
            problems.add(
                place,
                f"an edge comes from {name!r}, but its arguments do not name it",
                f"remove the edge {(name, node.name)!r} or name {name!r} in the arguments",
            )
    _check_kind(problems, place, node, takes=named != _condition(node))


def _condition(node: Node) -> list[str]:
    return [] if node.when is None else [node.when[0].node]


def _naming(node: Node, name: str) -> str:
    """Return the part of a node that names another one, with its verb."""
    is_argument = name in refs(*(node.args or ()), *node.kwargs.values())
    return "arguments name" if is_argument else "condition names"


def _check_kind(problems: Problems, place: Where, node: Node, *, takes: bool) -> None:
    """Check the fields that depend on the type of a node."""
    kind = node.type
    takes = takes or bool(node.args or (node.kwargs and kind != INPUT))
    if node.sets_state:
        if len(node.args or ()) > 1 or node.kwargs:
            problems.add(place, "a node of type state takes several arguments", "give it one")
    elif kind in (INPUT, STATE) and takes:
        problems.add(place, f"a node of type {kind} takes arguments", "remove them")
    elif kind == INPUT:
        _check_input(problems, place, node)
    if kind == OUTPUT and node.kwargs:
        problems.add(place, "an output takes arguments by name", "use one positional argument")
    if kind in (STATE, FUNCTION) and not node.implementation:
        problems.add(place, "its implementation is empty", f"say which {kind} it is")


def _check_input(problems: Problems, place: Where, node: Node) -> None:
    """Check the facts that an input node states."""
    for name, value in node.kwargs.items():
        kind = _INPUT_FACTS.get(name)
        if kind is None:
            known = ", ".join(_INPUT_FACTS)
            problems.add(place, f"it says {name!r} of an input", f"what can be said is {known}")
        elif kind is not object:
            problems.expect(place, name, value, kind)


# The facts that an input node may state, with their types.
_INPUT_FACTS: dict[str, type] = {"default": object, "fixed": object, "rank": int, "dtype": Symbol}


def _check_cycles(problems: Problems, place: Place, graph: Graph) -> None:
    runnable = [node.name for node in graph.in_execution_order()]
    if len(runnable) < len(graph.nodes):
        known = set(runnable)
        stuck = [name for name in graph.nodes if name not in known]
        names = ", ".join(map(repr, stuck[:5])) + (", …" if len(stuck) > 5 else "")
        problems.add(
            place,
            f"its graph has a cycle: {names} wait for one another",
            "remove an edge of it",
        )


def _check_differences(
    problems: Problems, implementation: Implementation, evaluation: Graph
) -> None:
    """Find an edit that was made in one of two graphs only."""
    known = implementation.differs
    if known is None:
        return
    for name in sorted(differing(implementation, evaluation, known)):
        what = "is not the same in both graphs any more"
        if name not in evaluation.nodes:
            what = "is not in the graph for evaluation"
        elif name not in implementation.nodes:
            what = "is only in the graph for evaluation"
        problems.add(
            (place_of(implementation), "node", name),
            f"it {what}",
            f"make the same edit in both nodes and evaluation.nodes, or add {name!r} to differs",
        )


_GRAPH_RULES: tuple[Callable[[Problems, Place, Graph], None], ...] = (
    _check_edges,
    _check_outputs,
    _check_nodes,
    check_conditions,
    _check_cycles,
    _check_regions,
)
