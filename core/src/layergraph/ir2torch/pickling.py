"""Graphs of torch.fx as plain data, for pickles.

Python stores a function by the place where it was defined, which many functions of torch cannot be
found at. Here they go by their names in an IR. Nor is the data nested as deep as a graph is long,
as the chain of a graph's nodes is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx
from torch.fx.graph import CodeGen
from torch.fx.node import map_aggregate

from layergraph.functions import function_of, stable_name
from layergraph.ir import Symbol
from layergraph.literals import NAMED, torch_value


@dataclass(frozen=True, slots=True)
class _Result:
    """What a node gave, by the number of the node."""

    number: int


@dataclass(frozen=True, slots=True)
class _Function:
    name: str


@dataclass(frozen=True, slots=True)
class StoredGraph:
    """A graph, for :func:`restored`.

    Attributes:
        nodes: of each node what it is made from, and its metadata.
        codegen: how the graph is written as code.
    """

    nodes: list[tuple[tuple[Any, ...], dict[str, Any]]]
    codegen: CodeGen


def stored(graph: fx.Graph) -> StoredGraph:
    """The plain data of a graph."""
    numbers = {node: number for number, node in enumerate(graph.nodes)}

    def plain(value: Any) -> Any:
        if isinstance(value, fx.Node):
            return _Result(numbers[value])
        if isinstance(value, NAMED):  # Python cannot pickle all of them.
            return Symbol(str(value))
        name = stable_name(value) if callable(value) else None
        return value if name is None else _Function(name)

    nodes = []
    for node in graph.nodes:
        args, kwargs = map_aggregate((node.args, node.kwargs), plain)
        made_from = (node.op, plain(node.target), args, kwargs, node.name, node.type)
        nodes.append((made_from, node.meta))
    return StoredGraph(nodes, graph._codegen)


def restored(data: StoredGraph) -> fx.Graph:
    """The graph again.

    Raises:
        BuildError: it calls a function that is not to be had here.
    """
    graph = fx.Graph()
    graph.set_codegen(data.codegen)
    nodes: list[fx.Node] = []

    def real(value: Any) -> Any:
        if isinstance(value, _Result):
            return nodes[value.number]
        if isinstance(value, Symbol):
            return torch_value(value)
        return function_of(value.name) if isinstance(value, _Function) else value

    for (op, target, args, kwargs, name, type_expr), meta in data.nodes:
        given: Any = map_aggregate((args, kwargs), real)
        node = graph.create_node(op, real(target), given[0], given[1], name, type_expr)
        node.meta = meta
        nodes.append(node)
    return graph
