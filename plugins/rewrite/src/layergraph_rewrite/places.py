"""Look-up of layers and nodes by name, and insertion of new calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

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
from layergraph_rewrite.terms import Applied, Existing, Function, Layer, Operation, applied
from layergraph_rewrite.terms import Value as Wildcard
from layergraph_rewrite.working import WorkingGraph, WorkingLayer
from layergraph_rewrite.workspace import Workspace

Where: TypeAlias = str | Site | Call


_Arguments: TypeAlias = tuple[tuple[Value, ...], Mapping[str, Value]]


class Place(NamedTuple):
    """The place of a new node in one graph: before another node, or at the end.

    Attributes:
        graph: the graph.
        before: the node that follows; None at the end.
        when: the condition of the new node.
        value: the value of VALUE there.
        node: the node at the place; a new call that states no arguments may take its own.
    """

    graph: WorkingGraph
    before: str | None
    when: tuple[Ref, bool] | None
    value: Value
    node: Node


class _Made(NamedTuple):
    """The layers made for a term, by its operations, and the nodes made for its arguments."""

    layers: dict[int, WorkingLayer]
    nodes: list[str]


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
            notes = near(text, self._space.layers)
            raise EditError("; ".join([f"there is no layer {text!r}", *notes]))
        return layer

    def _find(self, where: Where) -> tuple[WorkingLayer, str]:
        """Return a node: the layer of its graph, and its name."""
        if isinstance(where, Call):
            where = where.site
        if isinstance(where, str) and ":" in where:
            graph, _, node = where.rpartition(":")
            where = Site(graph, node)
        if isinstance(where, Site):
            owner = self._layer(where.graph)
            if not owner.graphs_with(where.node):
                names = [name for graph in owner.graphs for name in graph.nodes]
                notes = near(where.node, names)
                raise EditError("; ".join([f"{owner.name!r} has no node {where.node!r}", *notes]))
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
                raise EditError(f"there is no node {source!r} in a graph of {graph.owner.name!r}")
            if graph.order.is_before(source, name):
                continue
            for user in users:
                if not graph.order.is_before(source, user):
                    raise EditError(
                        f"{user!r} reads {name!r}, and cannot read {source!r}, which runs later"
                    )
        if type(value) is not Ref and any(
            when is not None and when[0].node == name
            for when in (graph.nodes[user].when for user in users)
        ):
            raise EditError(f"{name!r} is a condition of a node; only a node can take its place")

    def _refuse_output(self, owner: WorkingLayer, name: str) -> None:
        if owner.graphs_with(name)[0].nodes[name].type == OUTPUT:
            raise EditError(f"nothing runs after {owner.name}:{name}; insert before it")

    def _make(
        self,
        owner: WorkingLayer,
        places: Sequence[Place],
        term: Any,
        *,
        replaces: WorkingLayer | None = None,
    ) -> str:
        """Make the nodes of a term at a place in each graph; return the name of the last one.

        A layer or function that is not called takes the arguments of the node there. If a part of
        the term is refused, nothing is inserted.
        """
        made = _Made({}, [])
        try:
            name = self._made(owner, places, term, replaces, made)
        except Exception:
            for graph, *_ in places:
                for each in reversed(made.nodes):
                    graph.remove(each)
            for layer in made.layers.values():
                nesting.drop_unused(self._space, layer)
            raise
        owner.is_edited = True
        return name

    def _made(
        self,
        owner: WorkingLayer,
        places: Sequence[Place],
        term: Any,
        replaces: WorkingLayer | None,
        done: _Made,
    ) -> str:
        if isinstance(term, str):
            layer = self._layer(term)
            _check_inside(self._space.module_of(owner), layer)
            return _put(owner, places, layer.type, layer.name, _only_value, last_part(layer.name))
        call = term if isinstance(term, Layer | Function) else applied(term)
        operation = call.operation if isinstance(call, Applied) else call
        args: tuple[Value, ...] = ()
        kwargs: dict[str, Value] = {}

        def made(each: Any) -> Any:
            if isinstance(each, Applied):
                name = self._made(owner, places, each, None, done)
                done.nodes.append(name)
                return Ref(name)
            each = self._value(owner, each) if isinstance(each, Call | Site) else each
            if type(each) is Ref:
                _check_runs_before(each.node, places)
            return each

        if isinstance(call, Applied):
            args = tuple(map_leaves(made, each) for each in call.args)
            kwargs = {name: map_leaves(made, each) for name, each in call.kwargs.items()}

        def arguments(place: Place) -> _Arguments:
            if not isinstance(call, Applied):
                return place.node.args or (), place.node.kwargs

            def given(each: Any) -> Any:
                return place.value if isinstance(each, Wildcard) else each

            named = {name: map_leaves(given, each) for name, each in kwargs.items()}
            return tuple(map_leaves(given, each) for each in args), named

        return self._run(owner, places, operation, arguments, done, replaces)

    def _run(
        self,
        owner: WorkingLayer,
        places: Sequence[Place],
        operation: Operation,
        arguments: Callable[[Place], _Arguments],
        done: _Made,
        replaces: WorkingLayer | None,
    ) -> str:
        """Make the nodes that call a layer or function at a place in each graph."""
        if isinstance(operation, Existing):
            node = operation.call.node
            if node.is_call:
                module = self._space.module_of(owner)
                _check_inside(module, self._layer(node.implementation))
            return _put(owner, places, node.type, node.implementation, arguments, node.name)
        if not isinstance(operation, Layer):
            function = operation.names[0]
            wish = operation.name or last_part(function)
            return _put(owner, places, FUNCTION, function, arguments, wish)
        layer = done.layers.get(id(operation))
        if layer is None:
            layer = self._new_layer(owner, places, operation, replaces)
            done.layers[id(operation)] = layer
        return _put(owner, places, layer.type, layer.name, arguments, last_part(layer.name))

    def _new_layer(
        self,
        owner: WorkingLayer,
        places: Sequence[Place],
        operation: Layer,
        replaces: WorkingLayer | None,
    ) -> WorkingLayer:
        owner = self._space.module_of(owner)
        kind = operation.types[0]
        layer = WorkingLayer(Implementation(kind, dict(operation.attributes)))
        layer.training = owner.training if replaces is None else replaces.training
        layer.name = operation.name or kind  # for errors
        near = _near(owner, places, replaces)
        set_tensors(layer, operation.tensors, has_state=self._space.has_state, near=near)
        child = None if replaces is None else child_name(owner, replaces)
        if child is not None and child == operation.name:
            nesting.replace_child(self._space, owner, child, layer)
        else:
            nesting.adopt(self._space, owner, operation.name or kind, layer)
        return layer


def _near(
    owner: WorkingLayer, places: Sequence[Place], replaces: WorkingLayer | None
) -> Iterator[WorkingLayer]:
    """Yield the layers around a new one, the nearest ones first."""
    if replaces is not None:
        yield from replaces.inside()
    for graph, _, _, value, node in places:
        for source in [*refs(value), *node.sources()]:
            if source in graph and graph.nodes[source].is_call:
                yield from graph.layer_of(graph.nodes[source]).inside()
    for each in [owner, *nesting.composites_around(owner)]:
        yield from each.inside()


def _put(
    owner: WorkingLayer,
    places: Sequence[Place],
    kind: str,
    implementation: str,
    arguments: Callable[[Place], _Arguments],
    wish: str,
) -> str:
    """Add a node at a place in each graph, under one name."""
    name = owner.namer.name(wish)
    for place in places:
        args, kwargs = arguments(place)
        node = Node(name, kind, implementation, args, dict(kwargs), when=place.when)
        place.graph.add(node, before=place.before)
    return name


def _check_inside(owner: WorkingLayer, layer: WorkingLayer) -> None:
    """Refuse a call of a layer outside the composite."""
    if owner.parents and owner not in nesting.composites_around(layer):
        raise EditError(
            f"{owner.name!r} does not contain {layer.name!r}, and cannot call it; rename it into "
            f"{owner.name!r} first, or insert a new layer"
        )


def _check_runs_before(source: str, places: Sequence[Place]) -> None:
    for graph, before, *_ in places:
        if source not in graph or (
            before is not None and not graph.order.is_before(source, before)
        ):
            raise EditError(f"{graph.owner.name}:{source} does not run before the new node")


def _only_value(place: Place) -> _Arguments:
    return (place.value,), {}


def last_part(name: str) -> str:
    """Return the last part of a path."""
    return name.rpartition(".")[2]


def child_name(owner: WorkingLayer, layer: WorkingLayer) -> str | None:
    """Return the name of a layer as the only child of a parent; None if it has other parents."""
    names = [child for parent, child in layer.parents if parent is owner]
    return names[0] if len(layer.parents) == 1 and names else None
