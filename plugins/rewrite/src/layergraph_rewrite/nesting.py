"""Edits of the hierarchy: names, sharing and copies."""

from __future__ import annotations

from collections.abc import Mapping

from layergraph.ir import BODY, STATE
from layergraph_rewrite.errors import EditError
from layergraph_rewrite.working import WorkingLayer, changed
from layergraph_rewrite.workspace import Workspace


def adopt(space: Workspace, owner: WorkingLayer, wish: str, layer: WorkingLayer) -> str:
    """Make a new layer a child, under a free name like the wanted one, and return that name."""
    children = owner.children if owner.children is not None else {}
    child, number = wish, owner.numbers.get(wish, 0)
    while (
        child in children
        or child in owner.tensors
        or _path_name(space, owner, child) in space.layers
    ):
        number += 1
        child = f"{wish}_{number}"
    owner.numbers[wish] = number
    layer.name = _path_name(space, owner, child)
    layer.position = space.next_position()
    space.layers[layer.name] = layer
    owner.add(child, layer)
    return child


def replace_child(space: Workspace, owner: WorkingLayer, child: str, layer: WorkingLayer) -> None:
    """Replace a child by a new layer; the old child keeps its calls and loses its name."""
    old = owner.inner[child]
    name = old.name
    set_name(space, old, f"{name}\0old")
    del old.parents[owner, child]
    owner.add(child, layer)
    layer.name = name
    layer.position = old.position
    space.layers[name] = layer


def _path_name(space: Workspace, owner: WorkingLayer, child: str) -> str:
    return child if owner is space.root else f"{owner.name}.{child}"


def set_name(space: Workspace, layer: WorkingLayer, name: str) -> None:
    """Rename a layer, and update the nodes that call it."""
    calls = list(layer.calls)
    nodes = [graph.nodes[each] for graph, each in calls]
    layer.calls.clear()
    del space.layers[layer.name]
    layer.name = name
    space.layers[name] = layer
    for (graph, _), node in zip(calls, nodes, strict=True):
        new = changed(node, implementation=name)
        graph.nodes[node.name] = new
        layer.calls[graph, node.name] = None


def rename(space: Workspace, layer: WorkingLayer, new: str, parent: WorkingLayer | None) -> None:
    """Give a layer another name or another parent, and update the layers inside."""
    owner, child = _only_parent(space, layer)
    target = owner if parent is None else parent
    if target.children is None:
        raise EditError(f"{target.name!r} is a {target.type}, and no composite to move to")
    if target is layer or target in list(layer.inside()):
        raise EditError(f"{layer.name!r} cannot move into itself")
    if target is owner and new == child:
        return
    if new in target.tensors:
        raise EditError(f"{target.name!r} has a tensor {new!r}; choose another name")
    if parent is not None:
        _check_callers(space, layer, target)
    if new in target.children:
        raise EditError(f"{target.name!r} has a child {new!r}; choose another name")
    if target is owner:
        owner.rename_child(child, new)
    else:
        owner.drop(child)
        target.add(new, layer)
        target.is_edited = owner.is_edited = True
    _follow(space, layer, _path_name(space, target, new))


def _only_parent(space: Workspace, layer: WorkingLayer) -> tuple[WorkingLayer, str]:
    if layer is space.root:
        raise EditError("the root is the model itself and has no name to change")
    if len(layer.parents) != 1:
        raise EditError(f"{layer.name!r} has several paths; unshare it first")
    return next(iter(layer.parents))


def _check_callers(space: Workspace, layer: WorkingLayer, target: WorkingLayer) -> None:
    """Refuse a new parent outside a caller of the layer."""
    above = [target, *composites_around(target)]
    for graph, node in layer.calls:
        if space.module_of(graph.owner) not in above:
            raise EditError(
                f"{graph.owner.name}:{node} calls {layer.name!r}, and does not contain "
                f"{target.name!r}"
            )


def composites_around(layer: WorkingLayer) -> list[WorkingLayer]:
    """Return the composites that contain a layer."""
    found: dict[WorkingLayer, None] = {}
    stack = [layer]
    while stack:
        for parent, _ in stack.pop().parents:
            if parent not in found:
                found[parent] = None
                stack.append(parent)
    return list(found)


def _follow(space: Workspace, top: WorkingLayer, name: str) -> None:
    """Name a layer and those inside it after a new path."""
    old = top.name
    for layer in list(top.inside()):
        if layer is top or layer.name.startswith(f"{old}."):
            wish = name + layer.name[len(old) :]
            free, number = wish, 0
            while free in space.layers and space.layers[free] is not layer:
                number += 1
                free = f"{wish}_{number}"
            set_name(space, layer, free)


def share(space: Workspace, others: Mapping[WorkingLayer, WorkingLayer]) -> None:
    """Redirect all calls of some layers to others, which keep the paths of both.

    Args:
        space: the workspace that has them.
        others: the replacement of a layer and of each layer inside it; possibly itself.
    """
    going = {layer: other for layer, other in others.items() if layer is not other}
    for layer, other in going.items():
        for graph, name in list(layer.calls):
            graph.change(changed(graph.nodes[name], implementation=other.name))
            graph.owner.is_edited = True
        for parent, child in list(layer.parents):
            if parent not in going:
                parent.add(child, other)
        layer.parents.clear()
    for layer in going:
        for child, inner in (layer.children or {}).items():
            inner.parents.pop((layer, child), None)
        _forget(space, layer)
    space.redirect(going)


def drop_unused(space: Workspace, layer: WorkingLayer) -> bool:
    """Remove a layer without callers, unless layers inside it are still used.

    Returns:
        Whether the layer is gone.
    """
    inside = list(layer.inside())
    ids = {id(each) for each in inside}
    for each in inside:
        if any(id(graph.owner) not in ids for graph, _ in each.calls):
            return False
        outer = [parent for parent, _ in each.parents if id(parent) not in ids]
        if each is not layer and outer:
            return False
    if any(id(home) in ids for home in space.read_homes(ids)):
        return False
    for parent, child in list(layer.parents):
        parent.drop(child)
    space.keep_ties(ids)
    for each in inside:
        _forget(space, each)
    return True


def drop_all_unused(space: Workspace) -> None:
    """Remove the layers that no call or read reaches, and that contain no reached layer."""
    used = _reached(space)
    # A composite with a used layer inside stays. In reverse, inner layers come first.
    for layer in reversed(list(space.root.inside())):
        if any(id(inner) in used for inner in (layer.children or {}).values()):
            used.add(id(layer))
    for layer in list(space.root.inside()):
        if id(layer) in used:
            for child, inner in list((layer.children or {}).items()):
                if id(inner) not in used:
                    layer.drop(child)
    bodies = {id(layer) for layer in space.layers.values() if layer.type == BODY}
    kept = {id(layer) for layer in space.root.inside()} | (bodies & used)
    space.keep_ties({id(layer) for layer in space.layers.values()} - kept)
    for layer in list(space.layers.values()):
        if id(layer) not in kept:
            _forget(space, layer)


def _reached(space: Workspace) -> set[int]:
    """Return the ids of the layers that the graphs call, or whose tensors they read."""
    reached: set[int] = set()
    pending = [space.root]
    while pending:
        layer = pending.pop()
        if id(layer) in reached:
            continue
        reached.add(id(layer))
        for graph in layer.graphs:
            pending += [graph.layer_of(node) for node in graph if node.is_call]
            pending += [space.home(node.implementation)[0] for node in graph if node.type == STATE]
            pending += space.bodies_in(graph)
    return reached


def _forget(space: Workspace, layer: WorkingLayer) -> None:
    for graph in layer.graphs:
        for node in list(graph):
            if node.is_call:
                graph.layer_of(node).calls.pop((graph, node.name), None)
            space.layers.states.pop((graph, node.name), None)
    space.layers.pop(layer.name, None)
