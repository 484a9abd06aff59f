"""Replacing the call of a composite by the calls inside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from layergraph.ir import (
    FUNCTION,
    INPUT,
    MODULE,
    OUTPUT,
    Graph,
    Node,
    Ref,
    Value,
    map_leaves,
    returned,
)
from layergraph_rewrite.errors import EditError
from layergraph_rewrite.working import WorkingGraph, WorkingLayer, changed
from layergraph_rewrite.workspace import Workspace


def inline(space: Workspace, owner: WorkingLayer, name: str) -> dict[str, str]:
    """Replace the call of a composite by the calls inside it.

    Returns:
        The new names of its nodes by their old ones.
    """
    node = owner.graphs_with(name)[0].nodes[name]
    if not node.is_call:
        raise EditError(f"{owner.name}:{name} calls no composite")
    callee = owner.graphs_with(name)[0].layer_of(node)
    _check_inline(owner, name, callee)
    if len(callee.graphs) > 1 and len(owner.graphs) == 1:
        _split_modes(space, owner)
    owner.is_edited = True
    names: dict[str, str] = {}
    for index, graph in enumerate(owner.graphs):
        if name in graph:
            _inline(owner, graph, name, callee.graphs[min(index, len(callee.graphs) - 1)], names)
    if not callee.calls:
        _empty(callee)
    return names


def _empty(composite: WorkingLayer) -> None:
    """Remove the graphs of a composite that no node calls; it still holds its layers."""
    for graph in composite.graphs:
        for node in graph:
            if node.is_call:
                graph.layer_of(node).calls.pop((graph, node.name), None)
    composite.graphs = []
    composite.type = MODULE
    composite.data = {key: each for key, each in composite.data.items() if "." in key}


def _check_inline(owner: WorkingLayer, name: str, callee: WorkingLayer) -> None:
    if not callee.graphs:
        raise EditError(f"{callee.name!r} is a {callee.type}, and has no graph to inline")
    if owner.graphs_with(name)[0].nodes[name].when is not None:
        raise EditError(f"{owner.name}:{name} has a condition; it cannot be inlined")
    keeps_mode = callee.training != owner.training and callee.training is not None
    if len(callee.graphs) > 1 and (keeps_mode or callee.kept_modes):
        raise EditError(f"{callee.name!r} keeps a mode of its own; it cannot be inlined")
    _check_conditions(owner, name, callee)


def _check_conditions(owner: WorkingLayer, name: str, callee: WorkingLayer) -> None:
    for graph in callee.graphs:
        conditions = {node.when[0].node for node in graph if node.when is not None}
        conditions = {each for each in conditions if graph.nodes[each].type == INPUT}
        for outer in owner.graphs_with(name) if conditions else ():
            values = _bound(graph, outer.nodes[name])
            if any(type(values[each]) is not Ref for each in conditions):
                raise EditError(
                    f"{owner.name}:{name} gives a plain value for a condition of {callee.name!r}; "
                    "it cannot be inlined"
                )
    for graph in owner.graphs_with(name):
        for user in graph.users[name]:
            when = graph.nodes[user].when
            if when is not None and when[0].node == name:
                raise EditError(f"{owner.name}:{name} is a condition; it cannot be inlined")


def _bound(inner: WorkingGraph, node: Node) -> dict[str, Value]:
    """Return the arguments of a call for the inputs of a graph, by input node."""
    inputs = [each for each in inner if each.type == INPUT]
    values = {each.name: each.kwargs["default"] for each in inputs if "default" in each.kwargs}
    for each, value in zip(inputs, node.args or (), strict=False):
        values[each.name] = value
    for each in inputs:
        for key in (each.implementation, each.name):
            if key in node.kwargs:
                values[each.name] = node.kwargs[key]
    for each in inputs:
        if each.name not in values:
            raise EditError(f"{node.name!r} gives no value for the input {each.name!r}")
    return values


def _split_modes(space: Workspace, owner: WorkingLayer) -> None:
    """Give a composite a second graph, for evaluation."""
    graph = owner.graphs[0]
    second = WorkingGraph(owner, Graph(), space.layers)
    for node in graph:
        second.add(changed(node))
    second.copy_edge_data(graph)
    owner.graphs.append(second)


def _inline(
    owner: WorkingLayer,
    graph: WorkingGraph,
    name: str,
    inner: WorkingGraph,
    names: dict[str, str],
) -> None:
    """Inline one call in one graph; nodes with one name in both graphs get one new name."""
    values = _bound(inner, graph.nodes[name])
    for each, facts in known_inputs(inner):
        value = values[each]
        if type(value) is Ref and _depends_on_way(graph, value.node):
            guard = owner.namer.name("assume_tensor")
            graph.add(Node(guard, FUNCTION, GUARD, (value, *facts)), before=name)
    result = copied_before(owner, graph, name, inner, values, names)
    take_place(graph, name, result)


CHOICE, GUARD = "layergraph.choose", "layergraph.assume_tensor"


def known_inputs(graph: Iterable[Node]) -> Iterator[tuple[str, tuple[Value, ...]]]:
    """Yield the inputs of known rank or dtype, with the arguments of a guard besides the value.

    Elsewhere, the guards of the caller's inputs imply these. But a value that depends on the way of
    a model may have another rank on another way.
    """
    for node in graph:
        facts = node.kwargs.get("rank"), node.kwargs.get("dtype")
        if node.type == INPUT and facts != (None, None):
            yield node.name, (node.name, *facts)


def _depends_on_way(graph: WorkingGraph, name: str) -> bool:
    found, stack = {name}, [name]
    while stack:
        node = graph.nodes[stack.pop()]
        if node.implementation == CHOICE:
            return True
        stack += [each for each in node.sources() if each not in found]
        found.update(stack)
    return False


def copied_before(
    owner: WorkingLayer,
    graph: WorkingGraph,
    name: str,
    inner: WorkingGraph,
    values: dict[str, Value],
    names: dict[str, str],
) -> Value:
    """Copy the nodes of another graph before a node, and return the value of its output.

    Args:
        owner: the layer of the graph.
        graph: the graph.
        name: the node.
        inner: the other graph.
        values: the values for its inputs, by the name of the input node.
        names: the known new names of its nodes; this adds the others.
    """
    values = dict(values)

    def leaf(value: Value) -> Value:
        return values[value.node] if type(value) is Ref else value

    result: Value = None
    for each in inner:
        if each.type == INPUT:
            continue
        args = tuple(map_leaves(leaf, arg) for arg in each.args or ())
        if each.type == OUTPUT:
            result = returned(args)
            continue
        kwargs = {key: map_leaves(leaf, value) for key, value in each.kwargs.items()}
        when = each.when
        if when is not None:
            when = (map_leaves(leaf, when[0]), when[1])
        new = names.get(each.name)
        if new is None:
            new = names[each.name] = owner.namer.name(each.name)
        values[each.name] = Ref(new)
        graph.add(changed(each, name=new, args=args, kwargs=kwargs, when=when), before=name)
    return result


def take_place(graph: WorkingGraph, name: str, result: Value) -> None:
    """Replace a node, and reads of its elements, by a known value, and remove the node."""
    for user in list(graph.users[name]):
        item = graph.nodes[user]
        known = _element(item, name, result)
        if known is not None:
            graph.replace_uses(user, known[0])
            graph.remove(user)
    graph.replace_uses(name, result)
    graph.remove(name)


def _element(node: Node, name: str, whole: Value) -> tuple[Value] | None:
    """Return the element of a known tuple that a node reads, in a 1-tuple; or None."""
    args = node.args or ()
    if node.implementation != "operator.getitem" or len(args) != 2 or args[0] != Ref(name):
        return None
    index = args[1]
    if type(whole) in (tuple, list) and type(index) is int and -len(whole) <= index < len(whole):
        return (whole[index],)
    if type(whole) is dict and index in whole:
        return (whole[index],)
    return None
