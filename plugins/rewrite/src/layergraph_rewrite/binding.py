"""The arguments of a call, by the inputs of the composite that it calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from layergraph.ir import Graph, Node


def bound(inputs: Iterable[Node], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the argument for each input of a composite.

    Args:
        inputs: its input nodes, in order.
        args: the positional arguments.
        kwargs: the keyword arguments.

    Returns:
        The argument or the default, by the name of the input node.

    Example:
        >>> from layergraph import Node
        >>> from layergraph_rewrite.binding import bound
        >>> x, mask = Node("x", "input", "x"), Node("m", "input", "mask", kwargs={"default": None})
        >>> bound([x, mask], (1,), {})
        {'x': 1, 'm': None}
    """
    nodes = {node.name: node for node in inputs}
    names = Graph(nodes=nodes).parameters()
    given = {**dict(zip(names.values(), args, strict=False)), **kwargs}
    return {
        name: given.get(names[name], node.kwargs.get("fixed", node.kwargs.get("default")))
        for name, node in nodes.items()
    }
