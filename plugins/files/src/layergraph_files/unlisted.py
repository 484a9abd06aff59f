"""Calls of functions that a graph can hold in memory, but a file cannot."""

from __future__ import annotations

from collections.abc import Iterator

from layergraph.errors import Place
from layergraph.functions.foreign import callable_of
from layergraph.functions.names import Targets
from layergraph.ir import FUNCTION, Ir
from layergraph.ir.function_name import FunctionName


def unlisted(ir: Ir, known: Targets) -> Iterator[tuple[Place, FunctionName]]:
    """Yield each call of a function that no plugin lists, so that a file cannot name it.

    Args:
        ir: the IR.
        known: the functions that plugins name.

    Yields:
        The place of the node, and the name of the function.
    """
    for each in ir.values():
        for graph in each.graphs:
            for node in graph.nodes.values():
                name = node.implementation
                if node.type == FUNCTION and type(name) is FunctionName:
                    # A plugin may have been installed since the capture.
                    listed = known.target(str(name))
                    if listed is None or listed.target != callable_of(name.function):
                        yield Place("implementation", each.name).at("node", node.name), name
