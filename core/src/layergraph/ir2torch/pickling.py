"""Graphs of torch.fx as plain data, for pickles.

pickle stores a function by the module and name that it states, and many functions of torch are not
there. Here, functions have their names in an IR. pickle also recurses along the linked list of a
graph's nodes, which overflows the stack; a list does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx
from torch.fx.graph import CodeGen
from torch.fx.node import map_aggregate

from layergraph.functions.foreign import applied_class, callable_of
from layergraph.functions.names import function_of, stable_name
from layergraph.ir import Symbol
from layergraph.literals import NAMED, torch_value


@dataclass(frozen=True, slots=True)
class _Result:
    """A reference to the result of a node, by the number of the node."""

    number: int


@dataclass(frozen=True, slots=True)
class _Function:
    name: str


@dataclass(frozen=True, slots=True)
class _Applied:
    """A class of :class:`torch.autograd.Function`, which may have an ``apply`` of its own."""

    cls: type


@dataclass(frozen=True, slots=True)
class StoredGraph:
    """The plain data of a graph, for :func:`restored`.

    Attributes:
        nodes: for each node, the arguments of ``create_node``, and the metadata.
        codegen: the code generator of the graph.
    """

    nodes: list[tuple[tuple[Any, ...], dict[str, Any]]]
    codegen: CodeGen


def stored(graph: fx.Graph) -> StoredGraph:
    """Return the plain data of a graph."""
    numbers = {node: number for number, node in enumerate(graph.nodes)}

    def plain(value: Any) -> Any:
        if isinstance(value, fx.Node):
            return _Result(numbers[value])
        if isinstance(value, NAMED):  # pickle refuses some of them
            return Symbol(str(value))
        name = stable_name(value) if callable(value) else None
        if name is not None:
            return _Function(name)
        cls = applied_class(value)
        return value if cls is None else _Applied(cls)

    nodes = []
    for node in graph.nodes:
        args, kwargs = map_aggregate((node.args, node.kwargs), plain)
        made_from = (node.op, plain(node.target), args, kwargs, node.name, node.type)
        nodes.append((made_from, node.meta))
    return StoredGraph(nodes, graph._codegen)


def restored(data: StoredGraph) -> fx.Graph:
    """Return the graph of plain data.

    Raises:
        BuildError: the graph calls a function that is not installed.
    """
    graph = fx.Graph()
    graph.set_codegen(data.codegen)
    nodes: list[fx.Node] = []

    def real(value: Any) -> Any:
        if isinstance(value, _Result):
            return nodes[value.number]
        if isinstance(value, Symbol):
            return torch_value(value)
        if isinstance(value, _Applied):
            return callable_of(value.cls)
        return function_of(value.name) if isinstance(value, _Function) else value

    for (op, target, args, kwargs, name, type_expr), meta in data.nodes:
        given: Any = map_aggregate((args, kwargs), real)
        node = graph.create_node(op, real(target), given[0], given[1], name, type_expr)
        node.meta = meta
        nodes.append(node)
    return graph
