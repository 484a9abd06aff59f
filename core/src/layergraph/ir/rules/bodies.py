"""Rules of bodies: function nodes run them, and each belongs to one module."""

from __future__ import annotations

from layergraph.ir.bodies import bodies_of, owned
from layergraph.ir.graph import BODY, FUNCTION, Node
from layergraph.ir.mapping import Implementations
from layergraph.ir.rules.problems import Problems, Where, graphs_of, place_of


def check_bodies(problems: Problems, ir: Implementations) -> None:
    """Check each body, and each node that runs one."""
    for implementation in ir.values():
        for around, graph in graphs_of(implementation):
            for node in graph.nodes.values():
                for body in node.bodies():
                    _check_body(problems, (around, "node", node.name), ir, node, body)
    named = [each for each in ir.values() if each.type == BODY]
    if named:
        _check_owners(problems, ir)
    for each in named:
        if each.children or each.tensors or each.kept_modes or each.data or each.name == ir.root:
            problems.add(
                place_of(each),
                "a body has no module, so that it has no children, tensors or attributes",
                "give them to the implementation that runs it",
            )
        if not each.nodes:
            problems.add(place_of(each), "the body has no graph", "give it one, or remove it")


def _check_body(
    problems: Problems, place: Where, ir: Implementations, node: Node, body: str
) -> None:
    if node.type != FUNCTION:
        problems.add(place, f"it takes the body {body!r}", "let a function node take it")
    elif body not in ir or ir[body].type != BODY:
        problems.add(
            place,
            f"its arguments name {body!r}, which is no body",
            f"name an implementation of type {BODY}",
        )


def _check_owners(problems: Problems, ir: Implementations) -> None:
    owners: dict[str, list[str]] = {}
    for name, inside in owned(ir).items():
        for body in inside:
            owners.setdefault(body, []).append(name)
    for implementation in ir.values():
        if implementation.type != BODY:
            continue
        if implementation.name in bodies_of(ir, implementation.name):
            problems.add(place_of(implementation), "it runs itself", "break the circle")
        found = owners.get(implementation.name, [])
        if len(found) != 1:
            says = f"{' and '.join(map(repr, found))} run it" if found else "no node runs it"
            problems.add(
                place_of(implementation), says, "let the nodes of one implementation run it"
            )
