"""The JSON of Model Explorer: a list of graphs, whose nodes name the layers around them.

Model Explorer shows one graph, and a layer for each part of a namespace. So each call of a
composite has its own nodes: an input node of its graph reads the argument of the call, and readers
of the call read its output node.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from layergraph.errors import ArgumentError
from layergraph.ir import OUTPUT, Graph, Ir, Node, Value, refs
from layergraph_view.document import Document

MOST_NODES = 200_000
"""The most nodes: a small IR whose layers call each other twice would have millions."""


def model_explorer(made: Document, ir: Ir) -> str:
    """Return the JSON text.

    Args:
        made: the document of the IR.
        ir: the IR.

    Raises:
        ArgumentError: the graph would have more than :data:`MOST_NODES` nodes.
    """
    drawing = _Drawing(made, ir)
    drawing.run()
    graph = {
        "id": made.title,
        "nodes": drawing.nodes,
        "groupNodeAttributes": drawing.groups,
    }
    return json.dumps([graph], indent=1)


_Given = dict[str, list[str]]
"""The ids of outside nodes that a node in a graph reads, by name of the node."""


class _Drawing:
    """The nodes of the graph, and the attributes of namespaces."""

    def __init__(self, made: Document, ir: Ir) -> None:
        self._made = made
        self._ir = ir
        self._layers = {name: made.layers[place] for place, name in enumerate(ir)}
        self.nodes: list[dict[str, Any]] = []
        self.groups: dict[str, dict[str, str]] = {}

    def run(self) -> None:
        """Draw all calls, from the model on. Calls may be nested to any depth."""
        waiting: list[tuple[str, str, _Given]] = [(self._ir.root, "", {})]
        while waiting:
            waiting += self._draw(*waiting.pop())
            if len(self.nodes) > MOST_NODES:
                raise ArgumentError(
                    f"it comes to more than {MOST_NODES} nodes for Model Explorer, which shows "
                    "each call; write an .html, which shows each layer once"
                )

    def _graph(self, name: str) -> Graph:
        return self._ir[name].graphs[-1 if self._made.evaluates else 0]

    def _draw(self, name: str, space: str, given: _Given) -> Iterator[tuple[str, str, _Given]]:
        """Draw a call, and yield the calls and bodies in it.

        Args:
            name: the implementation.
            space: the namespace.
            given: the outside nodes that its nodes read.
        """
        layer = self._layers[name]
        if space:
            self.groups[space] = {"type": layer.type, "path": layer.name, **dict(layer.attributes)}
        graph = self._graph(name)
        if not graph.nodes:
            self._add(f"{space}/", space, layer.type, [], layer.attributes, "")
            return
        level = layer.levels[-1 if self._made.evaluates else 0]
        shapes = {src: shape for src, _, shape in level.edges}
        arguments = graph.arguments()
        for place, (node, step) in enumerate(
            zip(graph.in_execution_order(), level.steps, strict=True)
        ):
            inner = _joined(space, node.name)
            if self._is_open(node):
                inside = self._bound(node, arguments[node.name])
                yield (
                    node.implementation,
                    inner,
                    {each: self._read(graph, space, value) for each, value in inside.items()},
                )
                continue
            reads = self._read(graph, space, [*arguments[node.name], *node.kwargs.values()])
            reads += self._read(graph, space, node.when) + given.get(node.name, [])
            for body in node.bodies():
                yield body, _joined(inner, body), {}
                reads.append(self._result(body, _joined(inner, body)))
            pairs = [("node", step.text), *step.notes]
            if step.target is not None:
                pairs += self._made.layers[step.target].attributes
            self._add(inner, space, step.label, reads, pairs, shapes.get(place, ""))

    def _is_open(self, node: Node) -> bool:
        return node.is_call and bool(self._ir[node.implementation].nodes)

    def _read(self, graph: Graph, space: str, value: Value) -> list[str]:
        """Return the ids of the nodes that an argument reads."""
        found = []
        for name in refs(value):
            node, inner = graph.nodes[name], _joined(space, name)
            found.append(self._result(node.implementation, inner) if self._is_open(node) else inner)
        return found

    def _result(self, name: str, space: str) -> str:
        """Return the id of the output node of a call, which may belong to an inner call."""
        outputs = [each.name for each in self._graph(name).nodes.values() if each.type == OUTPUT]
        return _joined(space, outputs[0]) if outputs else f"{space}/"

    def _bound(self, node: Node, args: tuple[Value, ...]) -> dict[str, Value]:
        """Return the argument of each input node in a call, and the condition of its output."""
        graph = self._graph(node.implementation)
        names = graph.parameters()
        inside: dict[str, Value] = dict(zip(names, args, strict=False))
        by_parameter = {parameter: name for name, parameter in names.items()}
        inside |= {by_parameter.get(name, name): value for name, value in node.kwargs.items()}
        if node.when is not None:
            inside |= {each.name: node.when for each in graph.nodes.values() if each.type == OUTPUT}
        return inside

    def _add(
        self,
        name: str,
        space: str,
        label: str,
        reads: list[str],
        pairs: Iterable[tuple[str, str]],
        shape: str,
    ) -> None:
        node: dict[str, Any] = {"id": name, "label": label, "namespace": space}
        node["attrs"] = [{"key": key, "value": value} for key, value in pairs]
        node["incomingEdges"] = [
            {"sourceNodeId": each, "sourceNodeOutputId": "0", "targetNodeInputId": str(number)}
            for number, each in enumerate(dict.fromkeys(reads))
        ]
        if shape:
            attrs = [{"key": "tensor_shape", "value": shape}]
            node["outputsMetadata"] = [{"id": "0", "attrs": attrs}]
        self.nodes.append(node)


def _joined(space: str, name: str) -> str:
    """Return a namespace or an id: escaped parts joined by slashes."""
    part = name.replace("%", "%25").replace("/", "%2F")
    return f"{space}/{part}" if space else part
