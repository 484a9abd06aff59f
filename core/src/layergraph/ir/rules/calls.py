"""Rules of calls: the implementation exists, is contained, and takes the arguments."""

from __future__ import annotations

from layergraph.ir.bodies import owners
from layergraph.ir.graph import BODY, Implementation, Node
from layergraph.ir.mapping import Implementations
from layergraph.ir.rules.problems import Problems, Where, graphs_of
from layergraph.ir.submodules import Ancestry


def check_calls(problems: Problems, ir: Implementations) -> None:
    """Check each node that calls an implementation."""
    ancestry = Ancestry.of(ir)
    owned = owners(ir)
    parameters = {
        name: [list(graph.parameters().values()) for graph in each.graphs]
        for name, each in ir.items()
        if each.nodes
    }
    for implementation in ir.values():
        owner = owned.get(implementation.name, implementation.name)
        for around, graph in graphs_of(implementation):
            arguments = graph.arguments()
            for node in graph.nodes.values():
                if not node.is_call:
                    continue
                place = (around, "node", node.name)
                if node.implementation not in ir:
                    problems.add(
                        place,
                        f"it calls {node.implementation!r}, which is no implementation",
                        "add the implementation or call another",
                    )
                    continue
                callee = ir[node.implementation]
                _check_callee(problems, place, ancestry, ir[owner], node, callee)
                taken = parameters.get(callee.name, [])
                count = len(arguments[node.name])
                if taken and not any(_fits(node, count, each) for each in taken):
                    takes = " or ".join(map(_listed, taken))
                    problems.add(
                        place, f"its arguments do not fit {callee.name!r}", f"give it {takes}"
                    )


def _check_callee(
    problems: Problems,
    place: Where,
    ancestry: Ancestry,
    implementation: Implementation,
    node: Node,
    callee: Implementation,
) -> None:
    if node.type != callee.type:
        problems.add(
            place,
            f"its type is {node.type!r}, but {callee.name!r} is of type {callee.type!r}",
            "give both the same type",
        )
    if callee.type == BODY:
        problems.add(place, f"it calls {callee.name!r}, a body", "let a function node run it")
    elif not ancestry.contains(implementation.name, callee.name):
        problems.add(
            place,
            f"it calls {callee.name!r}, which is not among what {implementation.name!r} contains",
            "add it to the children there",
        )


def _fits(node: Node, count: int, parameters: list[str]) -> bool:
    if count + len(node.kwargs) != len(parameters):
        return False
    return sorted(parameters[count:]) == sorted(node.kwargs)


def _listed(parameters: list[str]) -> str:
    shown = ", ".join(parameters[:_SHOWN]) or "none"
    rest = len(parameters) - _SHOWN
    return shown if rest <= 0 else f"{shown} and {rest} more"


# A message lists so many names.
_SHOWN = 20
