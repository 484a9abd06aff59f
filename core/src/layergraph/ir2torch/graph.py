"""From the graph of an implementation to a graph of torch.fx."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

from torch import fx

from layergraph.errors import BuildError
from layergraph.functions import Functions
from layergraph.ir import (
    FUNCTION,
    INPUT,
    OUTPUT,
    STATE,
    Graph,
    Node,
    Record,
    Ref,
    Symbol,
    Value,
    returned,
)
from layergraph.symbols import UnknownValueError, torch_value

Locate = Callable[[Node], str]


def fx_graph(source: Graph, where: str, functions: Functions, locate: Locate) -> fx.Graph:
    """A graph of an implementation, as torch.fx runs it.

    Args:
        source: a checked one, with nodes.
        where: whose graph it is, for errors.
        functions: what function nodes may run.
        locate: the attribute path, from the module that gets the graph, of what a call or a state
            node stands for.

    Raises:
        BuildError: a function or a symbol is not known.
    """
    graph = fx.Graph()
    arguments = source.arguments()
    parameters = source.parameters()
    built: dict[str, fx.Node] = {}

    def value(plain: Value, place: str) -> Any:
        kind = type(plain)
        if kind is Ref:
            return built[plain.node]
        if kind is Symbol:
            try:
                return torch_value(plain)
            except UnknownValueError as error:
                raise BuildError(f"{place}: {error}; use a version of torch that has it") from None
        if kind is tuple or kind is list:
            return kind([value(item, place) for item in plain])
        if kind is dict:
            return {key: value(item, place) for key, item in plain.items()}
        if kind is slice:
            return slice(*[value(each, place) for each in (plain.start, plain.stop, plain.step)])
        if kind is Record:
            items = [value(item, place) for item in plain.fields.values()]
            return _named_tuple(plain, place)(*items)
        return plain

    for node in source.in_execution_order():
        place = f"{where}, node {node.name!r}"
        args = tuple([value(arg, place) for arg in arguments[node.name]])
        kwargs = {name: value(arg, place) for name, arg in node.kwargs.items()}
        if node.type == INPUT:
            target = parameters[node.name]
            built[node.name] = graph.create_node("placeholder", target, name=node.name)
        elif node.type == OUTPUT:
            graph.output(returned(args))
        elif node.type == STATE:
            built[node.name] = graph.create_node("get_attr", locate(node), name=node.name)
        elif node.type == FUNCTION:
            built[node.name] = _call_function(graph, functions, node, place, args, kwargs)
        else:
            built[node.name] = graph.create_node(
                "call_module", locate(node), args, kwargs, name=node.name
            )
    return graph


def _call_function(
    graph: fx.Graph,
    functions: Functions,
    node: Node,
    place: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> fx.Node:
    target = functions.target(node.implementation)
    if target is None:
        raise BuildError(
            f"{place}: no function is named {node.implementation!r}; install the plugin that names "
            "it, or a version of torch that has it"
        )
    if target.op == "attribute":
        if len(args) != 1 or kwargs:
            raise BuildError(f"{place}: {node.implementation} takes one argument, the value")
        return graph.create_node(
            "call_function", getattr, (args[0], target.target), name=node.name
        )
    if target.op == "call_method" and not args:
        raise BuildError(f"{place}: {node.implementation} takes the tensor as its first argument")
    return graph.create_node(target.op, target.target, args, kwargs, name=node.name)


def _named_tuple(record: Record, place: str) -> Any:
    try:
        return collections.namedtuple(record.type, list(record.fields))  # noqa: PYI024
    except ValueError as error:
        raise BuildError(f"{place}: {record.type!r} is no named tuple: {error}") from None
