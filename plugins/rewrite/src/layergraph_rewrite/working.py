"""The layers and graphs of an edit, in a form with constant-time edits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from layergraph.ir import (
    STATE,
    Graph,
    Implementation,
    Namer,
    Node,
    Ref,
    TensorSpec,
    Value,
    graph_from_nodes,
    map_leaves,
)
from layergraph_rewrite.order import Order
from layergraph_rewrite.sources import Source


class Layers(dict[str, "WorkingLayer"]):
    """All layers under edit, by name.

    Attributes:
        changed: the nodes changed since it was last emptied; None to record none.
        states: the nodes that read a tensor of a layer, or its mode.
        homes: the layer and the tensor name of each key of a node.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.changed: dict[tuple[WorkingGraph, str], None] | None = None
        self.states: dict[tuple[WorkingGraph, str], None] = {}
        self.homes: dict[str, tuple[WorkingLayer, str]] = {}

    def is_read(self, layer: WorkingLayer) -> bool:
        """Return whether a node reads a tensor of a layer."""
        keys = {graph.nodes[name].implementation for graph, name in self.states}
        return any(self.homes[key][0] is layer for key in keys)


class WorkingGraph:
    """A graph under edit: its nodes in execution order, and the users of each.

    Every node states its arguments. An edit replaces nodes, and never mutates one.

    Args:
        owner: the layer that the graph belongs to.
        graph: the graph to start from.
        layers: all layers by name.
    """

    def __init__(self, owner: WorkingLayer, graph: Graph, layers: Layers) -> None:
        self.owner = owner
        self.nodes: dict[str, Node] = {}
        self.users: dict[str, dict[str, None]] = {}
        self.order = Order()
        self.layers = layers
        self._edge_data = {pair: edge.data for pair, edge in graph.edges.items() if edge.data}
        arguments = graph.arguments()
        for node in graph.in_execution_order():
            self.add(changed(node, args=arguments[node.name]))

    def __iter__(self) -> Iterator[Node]:
        return (self.nodes[name] for name in self.order)

    def __contains__(self, name: object) -> bool:
        return name in self.nodes

    def add(self, node: Node, *, before: str | None = None) -> None:
        """Add a node before another one, or at the end."""
        self.order.insert(node.name, before=before)
        self.users.setdefault(node.name, {})
        self._connect(node)

    def remove(self, name: str) -> Node:
        """Remove a node that no other node reads, and return it."""
        node = self.nodes[name]
        self._disconnect(node)
        del self.nodes[name], self.users[name]
        self.order.remove(name)
        return node

    def change(self, node: Node) -> None:
        """Replace the node of the same name."""
        self._disconnect(self.nodes[node.name])
        self._connect(node)

    def rename(self, name: str, new: str) -> None:
        """Rename a node, and update the nodes that read it."""
        node = self.nodes[name]
        self.add(changed(node, name=new), before=name)
        self.replace_uses(name, Ref(new))
        for source in node.sources():
            if (source, name) in self._edge_data:
                self._edge_data[source, new] = self._edge_data.pop((source, name))
        self.remove(name)

    def replace_uses(self, name: str, value: Value, *, only: Iterable[str] | None = None) -> None:
        """Replace a node by another value for its users."""
        users = list(self.users[name]) if only is None else only

        def leaf(each: Value) -> Value:
            return value if type(each) is Ref and each.node == name else each

        for user in users:
            node = self.nodes[user]
            when = node.when
            if when is not None and when[0].node == name:
                when = (value, when[1])
            args, kwargs = map_leaves(leaf, node.args), map_leaves(leaf, node.kwargs)
            data = self._edge_data.pop((name, user), None)
            self.change(changed(node, args=args, kwargs=kwargs, when=when))
            if data is not None and type(value) is Ref:
                self._edge_data[value.node, user] = data

    def copy_edge_data(self, graph: WorkingGraph, names: Mapping[str, str] | None = None) -> None:
        """Copy the annotations of the edges of another graph.

        Args:
            graph: the other graph.
            names: the new names of its nodes; None if unchanged.
        """
        for (src, sink), data in graph._edge_data.items():
            if names is None:
                self.annotate_edge(src, sink, data)
            elif src in names and sink in names:
                self.annotate_edge(names[src], names[sink], data)

    def edge_data(self, src: str, sink: str) -> dict[str, Value]:
        """Return the annotations of an edge."""
        return self._edge_data.get((src, sink), {})

    def annotate_edge(self, src: str, sink: str, data: dict[str, Value]) -> None:
        """Add annotations to an edge."""
        self._edge_data[src, sink] = {**self._edge_data.get((src, sink), {}), **data}

    def layer_of(self, node: Node) -> WorkingLayer:
        """Return the layer that a node calls."""
        return self.layers[node.implementation]

    def output(self) -> Node:
        """Return the output node."""
        for name in reversed(self.nodes):
            if self.nodes[name].type == "output":
                return self.nodes[name]
        raise AssertionError  # unreachable: every graph has one

    def finished(self, named: Callable[[Node], Node]) -> Graph:
        """Return the graph as plain data.

        Args:
            named: returns a node with the final name of its target.
        """
        graph = graph_from_nodes(map(named, self))
        for pair, data in self._edge_data.items():
            if pair in graph.edges:
                graph.edges[pair].data = data
        return graph

    def _connect(self, node: Node) -> None:
        self.nodes[node.name] = node
        for source in node.sources():
            self.users.setdefault(source, {})[node.name] = None
        if node.is_call:
            self.layers[node.implementation].calls[self, node.name] = None
        elif node.type == STATE:
            self.layers.states[self, node.name] = None
        if self.layers.changed is not None:
            self.layers.changed[self, node.name] = None

    def _disconnect(self, node: Node) -> None:
        for source in node.sources():
            self.users[source].pop(node.name, None)
        if node.is_call:
            self.layers[node.implementation].calls.pop((self, node.name), None)
        elif node.type == STATE:
            self.layers.states.pop((self, node.name), None)


class WorkingLayer:
    """A layer or composite under edit.

    Attributes:
        name: the name of the implementation.
        type: its type.
        data: attributes and annotations.
        children: the layers inside, by name; None for a leaf.
        graphs: its graph; a second one if the evaluation graph differs.
        tensors: the specs of its tensors. Ties are keys of the original model.
        sources: the sources of its tensors by name; empty without a state dict.
        training: its mode.
        kept_modes: the layers inside, or itself, whose mode is fixed.
        calls: the nodes that call it, each with its graph.
        parents: the layers that it is a child of, each with the name of the child.
        position: its place among the implementations of the IR.
        is_edited: whether its graph has changed, so that its type may no longer fit.
        numbers: the last number suffix of new children, by preferred name.
    """

    def __init__(self, each: Implementation) -> None:
        self.name = each.name
        self.type = each.type
        self.data = each.data
        self.children: dict[str, WorkingLayer] | None = None if each.children is None else {}
        self.graphs: list[WorkingGraph] = []
        self.tensors: dict[str, TensorSpec] = each.tensors
        self.sources: dict[str, Source] = {}
        self.training = each.training
        self.kept_modes: dict[WorkingLayer, bool | None] = {}
        self.calls: dict[tuple[WorkingGraph, str], None] = {}
        self.parents: dict[tuple[WorkingLayer, str], None] = {}
        self.position = 0
        self.is_edited = False
        self.numbers: dict[str, int] = {}
        self._ranks: dict[str, int] = {}  # only after a child is renamed
        self.namer = Namer(name for graph in each.graphs for name in graph.nodes)

    def namer_copy(self) -> Namer:
        """Return a namer with the names of the nodes as taken."""
        return Namer(name for graph in self.graphs for name in graph.nodes)

    @property
    def attributes(self) -> dict[str, Value]:
        """Return the data without annotations."""
        return {name: value for name, value in self.data.items() if "." not in name}

    @property
    def inner(self) -> dict[str, WorkingLayer]:
        """Return the children; a leaf gets an empty dict of children."""
        if self.children is None:
            self.children = {}
        return self.children

    def add(self, child: str, layer: WorkingLayer) -> None:
        """Add a child."""
        self.inner[child] = layer
        if self._ranks:
            self._ranks.setdefault(child, next(_rank))
        layer.parents[self, child] = None

    def drop(self, child: str) -> WorkingLayer:
        """Remove a child and return it."""
        layer = self.inner.pop(child)
        self._ranks.pop(child, None)
        del layer.parents[self, child]
        return layer

    def rename_child(self, child: str, new: str) -> None:
        """Rename a child in place; constant time after the first call."""
        if not self._ranks:
            self._ranks = {name: next(_rank) for name in self.inner}
        rank = self._ranks[child]
        self.add(new, self.drop(child))
        self._ranks[new] = rank

    def in_order(self) -> Mapping[str, WorkingLayer]:
        """Return the children in the order of the state dict."""
        children = self.children or {}
        if not self._ranks:
            return children
        return {name: children[name] for name in sorted(children, key=self._ranks.__getitem__)}

    def graphs_with(self, name: str) -> list[WorkingGraph]:
        """Return its graphs that have a node of this name."""
        return [graph for graph in self.graphs if name in graph]

    def inside(self) -> Iterator[WorkingLayer]:
        """Yield itself and all layers inside, each once, parents first."""
        seen: dict[int, None] = {}
        stack: list[Iterator[WorkingLayer]] = [iter([self])]
        while stack:
            layer = next(stack[-1], None)
            if layer is None:
                stack.pop()
            elif id(layer) not in seen:
                seen[id(layer)] = None
                yield layer
                if layer.children:
                    stack.append(iter(layer.children.values()))

    def innermost_first(self) -> Iterator[WorkingLayer]:
        """Yield itself and all layers inside, each once, inner layers first."""
        seen = {self}
        stack = [(self, iter((self.children or {}).values()))]
        while stack:
            layer, children = stack[-1]
            child = next((each for each in children if each not in seen), None)
            if child is None:
                stack.pop()
                yield layer
            else:
                seen.add(child)
                stack.append((child, iter((child.children or {}).values())))


_rank = itertools.count()


def changed(node: Node, **fields: Any) -> Node:
    """Return a copy of a node with other fields."""
    given = {
        "name": node.name,
        "type": node.type,
        "implementation": node.implementation,
        "args": node.args,
        "kwargs": node.kwargs,
        "data": node.data,
        "when": node.when,
    }
    return Node(**given | fields)
