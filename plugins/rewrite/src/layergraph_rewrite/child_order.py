"""The order of the children of a layer under edit."""

from __future__ import annotations

from collections.abc import Mapping

from layergraph.ir import MODULE, Graph
from layergraph_rewrite.working import WorkingLayer


def ordered(layer: WorkingLayer) -> list[str]:
    """Return the names of the children in the order of the IR."""
    children = layer.in_order()
    if layer.is_edited and layer.type != MODULE and layer.graphs:
        graphs = [graph.finished(lambda node: node) for graph in layer.graphs]
        return [*in_order_of_calls(graphs, names_of(children))[0]]
    return [*children]


def in_order_of_calls(graphs: list[Graph], children: dict[str, str]) -> tuple[dict[str, str], bool]:
    """Return the children of a container in the order of its calls, and whether they are a chain.

    A container whose graph calls each child once, one after another, keeps its type.
    """
    chain = graphs[0].chain()
    if len(graphs) > 1 or chain is None or sorted(chain) != sorted(children.values()):
        return children, False
    names = {target: child for child, target in children.items()}
    if len(names) != len(children):
        return children, False
    return {names[target]: target for target in chain}, True


def names_of(children: Mapping[str, WorkingLayer]) -> dict[str, str]:
    """Return the name of the layer of each child."""
    return {child: layer.name for child, layer in children.items()}


def joined(path: str, name: str) -> str:
    """Return the path of a child or the key of a tensor: the path of its layer, and its name."""
    return f"{path}.{name}" if path else name
