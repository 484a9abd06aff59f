"""The places of an edit: layers and nodes by name, and the calls that go there."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeAlias

from layergraph.errors import ArgumentError, near
from layergraph.ir import (
    FUNCTION,
    OUTPUT,
    Implementation,
    Node,
    Ref,
    Value,
    map_leaves,
    refs,
)
from layergraph_rewrite import nesting
from layergraph_rewrite.calls import Call, Site
from layergraph_rewrite.errors import EditError
from layergraph_rewrite.new_layers import set_tensors
from layergraph_rewrite.terms import Applied, Layer, applied
from layergraph_rewrite.terms import Value as Wildcard
from layergraph_rewrite.working import WorkingGraph, WorkingLayer
from layergraph_rewrite.workspace import Workspace

Where: TypeAlias = str | Site | Call

_Places: TypeAlias = list[tuple[WorkingGraph, str | None, tuple[Ref, bool] | None]]


class Places:
    """Finds layers and nodes, and makes new calls."""

    _space: Workspace

    def call(self, where: Where) -> Call:
        """Return the handle of a node.

        Raises:
            EditError: there is no such node, or several nodes call the layer.
        """
        owner, name = self._find(where)
        return Call(owner.graphs_with(name)[0], name)

    def _layer_or_none(self, where: Where) -> WorkingLayer | None:
        if isinstance(where, Call):
            return None if where.layer is None else self._layer(where.layer)
        if isinstance(where, Site) or ":" in where:
            owner, name = self._find(where)
            graph = owner.graphs_with(name)[0]
            node = graph.nodes[name]
            return graph.layer_of(node) if node.is_call else None
        return self._space.named(where)

    def _layer(self, where: Where) -> WorkingLayer:
        layer = self._layer_or_none(where)
        if layer is None:
            text = str(where.site) if isinstance(where, Call) else str(where)
            alike = near(text, self._space.layers)
            hint = f"; did you mean {' or '.join(map(repr, alike))}?" if alike else ""
            raise EditError(f"there is no layer {text!r}{hint}")
        return layer

    def _find(self, where: Where) -> tuple[WorkingLayer, str]:
        """Return a node: the layer that its graph belongs to, and its name."""
        if isinstance(where, Call):
            where = where.site
        if isinstance(where, str) and ":" in where:
            graph, _, node = where.rpartition(":")
            where = Site(graph, node)
        if isinstance(where, Site):
            owner = self._layer(where.graph)
            if not owner.graphs_with(where.node):
                names = [name for graph in owner.graphs for name in graph.nodes]
                alike = near(where.node, names)
                hint = f"; did you mean {' or '.join(map(repr, alike))}?" if alike else ""
                raise EditError(f"{owner.name!r} has no node {where.node!r}{hint}")
            return owner, where.node
        if not isinstance(where, str):
            raise ArgumentError(f"{where!r:.60} is no node; give the path of a layer, or a Call")
        layer = self._space.named(where)
        if layer is None or layer is self._space.root:
            if self._space.root.graphs_with(where):
                return self._space.root, where
            self._layer(where)
            raise EditError("the root is the model itself; no node calls it")
        sites = list(dict.fromkeys((graph.owner, name) for graph, name in layer.calls))
        if len(sites) != 1:
            listed = ", ".join(f"'{owner.name}:{name}'" for owner, name in sites[:5])
            raise EditError(
                f"{len(sites)} nodes call {where!r}; say which: {listed}"
                if sites
                else f"no node calls {where!r}"
            )
        return sites[0]

    def _value(self, owner: WorkingLayer, value: Any) -> Value:
        """Return a value of a node of a graph, or a plain value."""
        if isinstance(value, Call | Site | str):
            other, name = self._find(value)
            if other is not owner:
                raise EditError(f"{other.name}:{name} is not in the graph of {owner.name!r}")
            return Ref(name)
        return value

    def _check_order(
        self, graph: WorkingGraph, name: str, value: Value, users: Collection[str]
    ) -> None:
        for source in refs(value):
            if source not in graph:
                raise EditError(f"there is no node {source!r} in {graph.owner.name!r}")
            if graph.order.is_before(source, name):
                continue
            for user in users:
                if not graph.order.is_before(source, user):
                    raise EditError(
                        f"{user!r} reads {name!r}, and cannot read {source!r}, which runs later"
                    )

    def _refuse_output(self, owner: WorkingLayer, name: str) -> None:
        if owner.graphs_with(name)[0].nodes[name].type == OUTPUT:
            raise EditError(f"nothing runs after {owner.name}:{name}; insert before it")

    def _make(
        self,
        owner: WorkingLayer,
        at: str,
        term: Any,
        value: Value,
        *,
        after: bool,
        replaces: WorkingLayer | None = None,
    ) -> str:
        """Make the nodes of a term at a node, in each graph that has it; return the last one."""
        owner.is_edited = True
        places = [
            (graph, graph.order.after(at) if after else at, graph.nodes[at].when)
            for graph in owner.graphs_with(at)
        ]
        return self._build(owner, places, term, value, replaces)

    def _build(
        self,
        owner: WorkingLayer,
        places: _Places,
        term: Any,
        value: Value,
        replaces: WorkingLayer | None = None,
    ) -> str:
        if isinstance(term, str):
            layer = self._layer(term)
            return _put(owner, places, layer.type, layer.name, (value,), {}, last_part(layer.name))
        call = applied(term)

        def given(each: Any) -> Value:
            if isinstance(each, Wildcard):
                return value
            if isinstance(each, Applied):
                return Ref(self._build(owner, places, each, value))
            return self._value(owner, each) if isinstance(each, Call | Site) else each

        args = tuple(map_leaves(given, each) for each in call.args)
        kwargs = {name: map_leaves(given, each) for name, each in call.kwargs.items()}
        operation = call.operation
        if not isinstance(operation, Layer):
            function = operation.names[0]
            wish = operation.name or last_part(function)
            return _put(owner, places, FUNCTION, function, args, kwargs, wish)
        layer = self._new_layer(owner, operation, replaces)
        return _put(owner, places, layer.type, layer.name, args, kwargs, last_part(layer.name))

    def _new_layer(
        self, owner: WorkingLayer, operation: Layer, replaces: WorkingLayer | None
    ) -> WorkingLayer:
        kind = operation.types[0]
        layer = WorkingLayer(Implementation(kind, dict(operation.attributes)))
        layer.training = owner.training if replaces is None else replaces.training
        child = None if replaces is None else child_name(owner, replaces)
        if child is not None and child == operation.name:
            nesting.replace_child(self._space, owner, child, layer)
        else:
            nesting.adopt(self._space, owner, operation.name or kind, layer)
        set_tensors(layer, operation.tensors, has_state=self._space.has_state)
        return layer


def _put(
    owner: WorkingLayer,
    places: _Places,
    kind: str,
    implementation: str,
    args: tuple[Value, ...],
    kwargs: dict[str, Value],
    wish: str,
) -> str:
    """Add a node at a place in each graph, under one name."""
    name = owner.namer.name(wish)
    for graph, before, when in places:
        node = Node(name, kind, implementation, args, kwargs, when=when)
        graph.add(node, before=before)
    return name


def last_part(name: str) -> str:
    return name.rpartition(".")[2]


def child_name(owner: WorkingLayer, layer: WorkingLayer) -> str | None:
    """Return the name of a layer as the only child of a parent; None if it has other parents."""
    names = [child for parent, child in layer.parents if parent is owner]
    return names[0] if len(layer.parents) == 1 and names else None
