"""Unrolling: a loop is replaced by its iterations."""

from __future__ import annotations

from typing import Any

from layergraph.ir import FUNCTION, INPUT, Body, Node, Ref, Value
from layergraph_rewrite.errors import EditError
from layergraph_rewrite.inlining import copied_before, take_place
from layergraph_rewrite.working import WorkingGraph, WorkingLayer
from layergraph_rewrite.workspace import Workspace

LOOP = "layergraph.loop"
"""The function that runs a body a number of times."""

_GUARD = "layergraph.assume"


def unroll(space: Workspace, owner: WorkingLayer, name: str, turns: int | None) -> None:
    """Replace a loop by its iterations, in each graph that has the node.

    Args:
        space: the workspace.
        owner: the layer whose graph has the node.
        name: the node.
        turns: the number of iterations; None: the number that the node states.
    """
    graphs = owner.graphs_with(name)
    for graph in graphs:
        _check(owner, graph.nodes[name], turns)
    owner.is_edited = True
    for graph in graphs:
        _unroll(space, owner, graph, graph.nodes[name], turns)


def _check(owner: WorkingLayer, node: Node, turns: int | None) -> None:
    where = f"{owner.name}:{node.name}"
    if node.type != FUNCTION or node.implementation != LOOP:
        raise EditError(f"{where} is no loop")
    if node.when is not None:
        raise EditError(f"{where} has a condition; it cannot be unrolled")
    stated = (node.args or ())[1]
    if turns is None and type(stated) is not int:
        raise EditError(f"the sizes of inputs decide how many turns {where} has; give a number")
    if turns is not None and (turns < 0 or (type(stated) is int and turns != stated)):
        raise EditError(f"{where} has {stated!r} turns, and not {turns}")


def _unroll(
    space: Workspace, owner: WorkingLayer, graph: WorkingGraph, node: Node, given: int | None
) -> None:
    body, stated, carried, constant, collected = _arguments(node)
    if type(stated) is Ref:
        guard = Node(
            owner.namer.name("assume"),
            FUNCTION,
            _GUARD,
            (stated, given, f"the number of turns of {node.name}"),
        )
        graph.add(guard, before=node.name)
    turns = stated if given is None else given
    inner = space.layers[body.implementation].graphs[0]
    inputs = [each.name for each in inner if each.type == INPUT]
    lists: list[list[Value]] = [[] for _ in range(collected)]
    for turn in range(turns):
        values = dict(zip(inputs, (turn, *carried, *constant), strict=True))
        result = copied_before(owner, graph, node.name, inner, values, {})
        if type(result) is not tuple or len(result) != len(carried) + collected:
            raise EditError(f"the body {body.implementation!r} does not return a tuple of values")
        carried = result[: len(carried)]
        for each, value in zip(lists, result[len(carried) :], strict=True):
            each.append(value)
    take_place(graph, node.name, (*carried, *lists))


def _arguments(node: Node) -> tuple[Body, Any, tuple[Value, ...], tuple[Value, ...], int]:
    given: dict[str, Any] = dict(zip(_PARAMETERS, node.args or (), strict=False))
    carried, constant = given.get("carried", ()), given.get("given", ())
    return given["body"], given["turns"], carried, constant, given.get("collected", 0)


_PARAMETERS = ("body", "turns", "carried", "given", "collected")
