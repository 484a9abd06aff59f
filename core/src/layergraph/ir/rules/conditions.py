"""Rules of conditions: which nodes have one, and which nodes can be one."""

from __future__ import annotations

from layergraph.errors import Place
from layergraph.ir.graph import FUNCTION, STATE, Graph, Node
from layergraph.ir.rules.problems import Problems


def check_conditions(problems: Problems, place: Place, graph: Graph) -> None:
    """Check the nodes of a graph that run under a condition.

    The rules of edges and arguments check that the condition is a node, that an edge comes from it,
    and that it is no output.
    """
    for node in graph.nodes.values():
        if node.when is None:
            continue
        here = (place, "node", node.name)
        if node.type != FUNCTION and not (node.is_call or node.sets_state):
            problems.add(
                here,
                f"a node of type {node.type} has a condition",
                "remove it: only functions, calls, and states that are set have one",
            )
        elif node.args is None:
            problems.add(
                here,
                "it has a condition, and its args are not given",
                "give it args, as in () or (Ref('x'),)",
            )
        condition = graph.nodes.get(node.when[0].node)
        if condition is not None and _is_tensor(condition):
            problems.add(
                here,
                f"its condition {condition.name!r} is a tensor of the state",
                "name a node that gives True or False, such as layergraph.truth of the tensor",
            )


def _is_tensor(node: Node) -> bool:
    """Return whether a node reads a tensor, and not the mode of a module."""
    is_mode = node.implementation.rpartition(".")[2] == "training"
    return node.type == STATE and not is_mode and not node.sets_state
