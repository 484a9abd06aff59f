"""Reading the graphs of a document. Equal graphs are read once: large models repeat a block."""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from layergraph.ir import Edge, Graph, Node, Ref
from layergraph.ir.copying import copied_graph
from layergraph.ir.graph import CORE_NODE_TYPES, STATE
from layergraph.ir.stated_arguments import with_arguments
from layergraph.ir.values import refs
from layergraph_files.parse_errors import JsonPath, ParseError, expect, expect_fields
from layergraph_files.values import decode, read_items, read_name, read_names, read_values

# Marshal writes types too, so that 1, 1.0 and true differ. Version 3 and later write an object that
# occurs twice as a reference to the first, so that equal forms may have different bytes.
_MARSHAL_VERSION = 2


class GraphReader:
    """Reads the graphs of one document."""

    def __init__(self) -> None:
        self._known: dict[bytes, Graph] = {}

    def read(self, fields: Mapping[str, Any], spot: JsonPath) -> Graph:
        """Return the graph in the fields ``nodes`` and ``edges`` of an object.

        Raises:
            ParseError: the fields have another form.
        """
        if "nodes" not in fields and "edges" not in fields:
            return Graph()
        key, named = _split(fields)
        known = None if key is None else self._known.get(key)
        if known is None:
            graph = _read_graph(fields, spot)
            if key is not None:
                self._known[key] = graph
            return graph
        graph = copied_graph(known)
        for name, implementation in named.items():
            graph.nodes[name].implementation = implementation
        return graph


# The nodes whose ``implementation`` is the same in each copy of a block.
_ALIKE = CORE_NODE_TYPES - {STATE}


def _split(fields: Mapping[str, Any]) -> tuple[bytes | None, dict[str, str]]:
    """Return a key that equal graphs share, and the ``implementation`` of each node outside it.

    The copies of a block differ in the implementations that their nodes call and in the tensors
    that their nodes read, so the key leaves these out. It is None if the form is not that of a
    graph, or if marshal cannot write it.
    """
    named: dict[str, str] = {}
    nodes: list[dict[str, Any]] = []
    try:
        for form in expect(fields.get("nodes", []), list, None, "an array"):
            if form["type"] in _ALIKE:
                nodes.append(form)
            else:
                named[form["name"]] = read_name(form["implementation"], None, "a string")
                nodes.append({**form, "implementation": None})
        edges = [fields["edges"]] if "edges" in fields else []
        return marshal.dumps((nodes, edges), _MARSHAL_VERSION), named
    except (KeyError, TypeError, ValueError, ParseError):
        return None, {}


def _read_graph(fields: Mapping[str, Any], spot: JsonPath) -> Graph:
    inputs: dict[str, list[str]] = {}

    def read_node(form: Any, here: JsonPath) -> Node:
        node, named = _read_node(form, here)
        if named is not None:
            if "edges" in fields:
                raise ParseError(
                    (here, "inputs"), "the graph has edges too", "write one of the two"
                )
            inputs[node.name] = named
            node.args = tuple(map(Ref, dict.fromkeys(named)))
        return node

    nodes = read_items(fields.get("nodes", []), (spot, "nodes"), read_node)
    if "edges" in fields:
        edges = _read_edges(fields["edges"], (spot, "edges"))
    else:
        edges = {pair: Edge(*pair) for pair in derived_edges(nodes.values(), inputs)}
    return with_arguments(Graph(nodes=nodes, edges=edges))


def derived_edges(
    nodes: Iterable[Node], inputs: Mapping[str, list[str]]
) -> Iterator[tuple[str, str]]:
    """Yield the edges that follow from the inputs and arguments of nodes, in their order.

    Args:
        nodes: the nodes.
        inputs: for each node whose form lists ``inputs`` instead of arguments, these inputs.
    """
    for node in nodes:
        named = inputs.get(node.name) or refs(*(node.args or ()), *node.kwargs.values())
        named = [*named, *refs(*(node.when or ()))]
        yield from ((src, node.name) for src in dict.fromkeys(named))


def _read_edges(form: Any, spot: JsonPath) -> dict[tuple[str, str], Edge]:
    edges: dict[tuple[str, str], Edge] = {}
    for index, each in enumerate(expect(form, list, spot, "an array of edges")):
        here = (spot, index)
        entry = expect_fields(each, here, "src sink", "data")
        src, sink = read_names(entry, here, "src", "sink")
        if (src, sink) in edges:
            raise ParseError(here, f"the edge {(src, sink)!r} appears twice", "write it once")
        edges[src, sink] = Edge(src, sink, read_values(entry, here, "data"))
    return edges


def _read_node(form: Any, spot: JsonPath) -> tuple[Node, list[str] | None]:
    fields = expect_fields(form, spot, "name type implementation", "inputs args kwargs when data")
    args = fields.get("args")
    inputs = fields.get("inputs")
    if "args" in fields:
        here = (spot, "args")
        listed = expect(args, list, here, "an array of arguments")
        args = tuple([decode(each, (here, index)) for index, each in enumerate(listed)])
    if "inputs" in fields:
        here = (spot, "inputs")
        if "args" in fields or "kwargs" in fields:
            raise ParseError(here, "there are arguments too", "write one of the two")
        for index, each in enumerate(expect(inputs, list, here, "names of nodes")):
            read_name(each, (here, index), "the name of a node")
    name, kind, implementation = read_names(fields, spot, "name", "type", "implementation")
    kwargs, data = read_values(fields, spot, "kwargs"), read_values(fields, spot, "data")
    when = _read_when(fields["when"], (spot, "when")) if "when" in fields else None
    return Node(name, kind, implementation, args, kwargs, data, when), inputs


def _read_when(form: Any, spot: JsonPath) -> tuple[Ref, bool]:
    pair = expect(form, list, spot, "the name of a node, and true or false")
    if len(pair) != 2:
        raise ParseError(spot, f"there are {len(pair)} items", "write a name, and true or false")
    name = read_name(pair[0], (spot, 0), "the name of a node")
    expected: bool = expect(pair[1], bool, (spot, 1), "true or false")
    return Ref(name), expected
