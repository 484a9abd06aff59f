"""Edits of the hierarchy: names, sharing, copies, and the borders of composites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from layergraph.ir import (
    INPUT,
    MODULE,
    OUTPUT,
    STATE,
    Graph,
    Implementation,
    Node,
    Ref,
    Value,
    map_leaves,
    returned,
)
from layergraph.ir.values import copied
from layergraph_rewrite.calls import Site
from layergraph_rewrite.effects import effect_of, may_pass
from layergraph_rewrite.errors import EditError
from layergraph_rewrite.sources import Source
from layergraph_rewrite.working import WorkingGraph, WorkingLayer, changed
from layergraph_rewrite.workspace import Workspace

Place = tuple[WorkingLayer, str]
"""A node: the layer that its graph belongs to, and its name."""


def adopt(space: Workspace, owner: WorkingLayer, wish: str, layer: WorkingLayer) -> str:
    """Make a new layer a child, under a free name like the wanted one, and return that name."""
    children = owner.children if owner.children is not None else {}
    child, number = wish, owner.numbers.get(wish, 0)
    while child in children or _path_name(space, owner, child) in space.layers:
        number += 1
        child = f"{wish}_{number}"
    owner.numbers[wish] = number
    layer.name = _path_name(space, owner, child)
    layer.position = space.next_position()
    space.layers[layer.name] = layer
    owner.add(child, layer)
    return child


def replace_child(space: Workspace, owner: WorkingLayer, child: str, layer: WorkingLayer) -> None:
    """Put a new layer in the place of a child, which keeps its calls and loses its name."""
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
    """Give a layer another name; the nodes that call it follow."""
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
    """Give a layer another name, or another parent; the layers inside follow."""
    if layer is space.root:
        raise EditError("the root is the model itself and has no name to change")
    if len(layer.parents) != 1:
        raise EditError(f"{layer.name!r} has several paths; unshare it first")
    ((owner, child),) = layer.parents
    target = owner if parent is None else parent
    if target.children is None:
        raise EditError(f"{target.name!r} is a {target.type}, and no composite to move to")
    if target is layer or target in list(layer.inside()):
        raise EditError(f"{layer.name!r} cannot move into itself")
    if target is owner and new == child:
        return
    if new in target.children:
        raise EditError(f"{target.name!r} has a child {new!r}; choose another name")
    if target is owner:
        children = owner.children or {}
        owner.children = {new if key == child else key: each for key, each in children.items()}
        del layer.parents[owner, child]
        layer.parents[owner, new] = None
    else:
        owner.drop(child)
        target.add(new, layer)
        target.is_edited = owner.is_edited = True
    _follow(space, layer, _path_name(space, target, new))


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


def share(space: Workspace, layer: WorkingLayer, other: WorkingLayer) -> None:
    """Let all calls of a layer call another one, under the paths of both."""
    for graph, name in list(layer.calls):
        graph.change(changed(graph.nodes[name], implementation=other.name))
        graph.owner.is_edited = True
    for parent, child in list(layer.parents):
        parent.add(child, other)
    layer.parents.clear()
    _forget(space, layer)


def copy(space: Workspace, owner: WorkingLayer, layer: WorkingLayer) -> WorkingLayer:
    """Return a copy of a layer with copies of its tensors, as a new child."""
    made: dict[int, WorkingLayer] = {}
    wish = next((child for _, child in layer.parents), layer.type)
    _copy(space, owner, wish, layer, made)
    for old in list(layer.inside()):
        _copy_graphs(space, old, made)
    return made[id(layer)]


def _copy(
    space: Workspace,
    owner: WorkingLayer,
    wish: str,
    layer: WorkingLayer,
    made: dict[int, WorkingLayer],
) -> None:
    if id(layer) in made:
        owner.add(wish, made[id(layer)])
        return
    is_leaf = layer.children is None
    new = WorkingLayer(
        Implementation(layer.type, copied(layer.data), children=None if is_leaf else {})
    )
    new.training = layer.training
    new.is_edited = layer.is_edited
    new.tensors = {name: replace(spec, tied=None) for name, spec in layer.tensors.items()}
    new.sources = {name: _cloned(source) for name, source in layer.sources.items()}
    made[id(layer)] = new
    adopt(space, owner, wish, new)
    for child, inner in (layer.children or {}).items():
        _copy(space, new, child, inner, made)
    new.kept_modes = {made[id(each)]: mode for each, mode in layer.kept_modes.items()}


def _cloned(source: Source) -> Source:
    return Source(lambda: source.read().clone())


def _copy_graphs(space: Workspace, old: WorkingLayer, made: dict[int, WorkingLayer]) -> None:
    new = made[id(old)]
    for graph in old.graphs:
        fresh = WorkingGraph(new, Graph(), space.layers)
        for node in graph:
            implementation = node.implementation
            if node.is_call:
                inner = graph.layer_of(node)
                implementation = made.get(id(inner), inner).name
            elif node.type == STATE:
                home, tensor = space.home(implementation)
                implementation = space.key(made.get(id(home), home), tensor)
            fresh.add(changed(node, implementation=implementation))
        new.graphs.append(fresh)
    new.namer = old.namer_copy()


def drop_unused(space: Workspace, layer: WorkingLayer) -> bool:
    """Remove a layer that nothing calls, unless something still uses what is inside.

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
    for each in inside:
        _forget(space, each)
    return True


def _forget(space: Workspace, layer: WorkingLayer) -> None:
    for graph in layer.graphs:
        for node in list(graph):
            if node.is_call:
                graph.layer_of(node).calls.pop((graph, node.name), None)
    space.layers.pop(layer.name, None)


def drop_all_unused(space: Workspace) -> None:
    """Remove the layers that no run of the model reaches, and that hold none that is reached."""
    used: set[int] = set()
    pending = [space.root]
    while pending:
        layer = pending.pop()
        if id(layer) in used:
            continue
        used.add(id(layer))
        for graph in layer.graphs:
            pending += [graph.layer_of(node) for node in graph if node.is_call]
            pending += [space.home(node.implementation)[0] for node in graph if node.type == STATE]
    # What contains a used layer stays; the deepest come last.
    for layer in reversed(list(space.root.inside())):
        if any(id(inner) in used for inner in (layer.children or {}).values()):
            used.add(id(layer))
    used.add(id(space.root))
    for layer in list(space.root.inside()):
        if id(layer) in used:
            for child, inner in list((layer.children or {}).items()):
                if id(inner) not in used:
                    layer.drop(child)
    kept = {id(layer) for layer in space.root.inside()}
    for layer in list(space.layers.values()):
        if id(layer) not in kept:
            _forget(space, layer)


def inline(space: Workspace, owner: WorkingLayer, name: str) -> dict[str, str]:
    """Replace the call of a composite by the calls inside it.

    Returns:
        The new names of its nodes by their old ones.
    """
    node = owner.graphs_with(name)[0].nodes[name]
    if not node.is_call:
        raise EditError(f"{owner.name}:{name} calls no composite")
    callee = owner.graphs_with(name)[0].layer_of(node)
    if not callee.graphs:
        raise EditError(f"{callee.name!r} is a {callee.type}, and has no graph to inline")
    if node.when is not None:
        raise EditError(f"{owner.name}:{name} has a condition; it cannot be inlined")
    if len(callee.graphs) > 1 and len(owner.graphs) == 1:
        _split_modes(space, owner)
    owner.is_edited = True
    names: dict[str, str] = {}
    for index, graph in enumerate(owner.graphs):
        if name in graph:
            _inline(owner, graph, name, callee.graphs[min(index, len(callee.graphs) - 1)], names)
    if not callee.calls:
        for graph in callee.graphs:
            for each in graph:
                if each.is_call:
                    graph.layer_of(each).calls.pop((graph, each.name), None)
        callee.graphs = []
        callee.type = MODULE
        callee.data = {key: each for key, each in callee.data.items() if "." in key}
    return names


def _split_modes(space: Workspace, owner: WorkingLayer) -> None:
    """Give a composite a second graph, for evaluation."""
    graph = owner.graphs[0]
    second = WorkingGraph(owner, Graph(), space.layers)
    for node in graph:
        second.add(changed(node))
    owner.graphs.append(second)


def _inline(
    owner: WorkingLayer,
    graph: WorkingGraph,
    name: str,
    inner: WorkingGraph,
    names: dict[str, str],
) -> None:
    """Inline one call in one graph; nodes of one name in both graphs get one new name."""
    node = graph.nodes[name]
    values: dict[str, Value] = {}
    inputs = [each for each in inner if each.type == INPUT]
    for each, value in zip(inputs, node.args or (), strict=False):
        values[each.name] = value
    for each in inputs:
        for key in (each.implementation, each.name):
            if key in node.kwargs:
                values[each.name] = node.kwargs[key]

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
    for user in list(graph.users[name]):
        item = graph.nodes[user]
        known = _element(item, name, result)
        if known is not None:
            graph.replace_uses(user, known[0])
            graph.remove(user)
    graph.replace_uses(name, result)
    graph.remove(name)


def _element(node: Node, name: str, whole: Value) -> tuple[Value] | None:
    """Return the element of a known tuple that a node takes, in a tuple; None if it takes none."""
    args = node.args or ()
    if node.implementation != "operator.getitem" or len(args) != 2 or args[0] != Ref(name):
        return None
    index = args[1]
    if type(whole) in (tuple, list) and type(index) is int and -len(whole) <= index < len(whole):
        return (whole[index],)
    if type(whole) is dict and index in whole:
        return (whole[index],)
    return None


def outline(space: Workspace, nodes: Sequence[Place], name: str) -> Site:
    """Move nodes of one graph, with the layers that they call, into a new composite."""
    if not nodes:
        raise EditError("there are no nodes to outline")
    owner = nodes[0][0]
    names = dict.fromkeys(each for _, each in nodes)
    if any(each is not owner for each, _ in nodes):
        raise EditError("nodes of several graphs cannot be one composite; inline first")
    graphs = [graph for graph in owner.graphs if any(each in graph for each in names)]
    for graph in graphs:
        _check_outline(space, graph, names)
    composite = WorkingLayer(Implementation(MODULE, children={}))
    composite.training = owner.training
    child = adopt(space, owner, name, composite)
    owner.is_edited = True
    site = owner.namer.name(child)
    for layer in _called(graphs, names):
        _move_in(space, composite, layer)
    for graph in graphs:
        _outline(space, graph, names, composite, site)
    return Site(owner.name, site)


def _check_outline(space: Workspace, graph: WorkingGraph, names: dict[str, None]) -> None:
    inside = [each for each in graph if each.name in names]
    for node in inside:
        if node.type in (INPUT, OUTPUT):
            raise EditError(f"{node.name!r} is an {node.type}, and cannot be in a composite")
        if node.when is not None:
            raise EditError(f"{node.name!r} has a condition; it cannot be in a composite")
    outside: dict[str, None] = {}
    effects = [effect_of(each, space.layers) for each in inside]
    for name in graph.order.between(inside[0].name, inside[-1].name):
        if name in names:
            continue
        node = graph.nodes[name]
        sources = node.sources()
        if any(each in names or each in outside for each in sources):
            outside[name] = None  # it runs after the composite, which it reads
        effect = effect_of(node, space.layers)
        if not all(may_pass(effect, each) for each in effects):
            raise EditError(
                f"{name!r} runs between the nodes, and changes a tensor in place, draws random "
                "numbers, or begins or ends a region; take it along"
            )
    for node in inside:
        for source in node.sources():
            if source in outside:
                raise EditError(
                    f"{node.name!r} reads {source!r}, which reads another of the nodes; take it "
                    "along"
                )


def _called(graphs: Sequence[WorkingGraph], names: dict[str, None]) -> list[WorkingLayer]:
    found: dict[int, WorkingLayer] = {}
    for graph in graphs:
        for node in graph:
            if node.name in names and node.is_call:
                layer = graph.layer_of(node)
                found[id(layer)] = layer
    return list(found.values())


def _move_in(space: Workspace, composite: WorkingLayer, layer: WorkingLayer) -> None:
    """Make a layer a child of a composite."""
    if len(layer.parents) != 1:
        composite.add(_free(composite, layer), layer)  # one more path of a shared layer
        return
    ((_, child),) = layer.parents
    new = child if child not in (composite.children or {}) else _free(composite, layer)
    rename(space, layer, new, composite)


def _free(composite: WorkingLayer, layer: WorkingLayer) -> str:
    wish = layer.name.rpartition(".")[2]
    child, number = wish, 0
    while child in (composite.children or {}):
        number += 1
        child = f"{wish}_{number}"
    return child


def _outline(
    space: Workspace,
    graph: WorkingGraph,
    names: dict[str, None],
    composite: WorkingLayer,
    site: str,
) -> None:
    inside = [graph.nodes[each.name] for each in graph if each.name in names]
    fresh = WorkingGraph(composite, Graph(), space.layers)
    reads = dict.fromkeys(
        source for node in inside for source in node.sources() if source not in names
    )
    given = {source: composite.namer.name(source) for source in reads}
    for new in given.values():
        fresh.add(Node(new, INPUT, new, ()))
    results = [
        node.name for node in inside if any(each not in names for each in graph.users[node.name])
    ]
    inner: dict[str, str] = dict(given)

    def leaf(value: Value) -> Value:
        return Ref(inner[value.node]) if type(value) is Ref else value

    for node in inside:
        inner[node.name] = composite.namer.name(node.name)
        args = tuple(map_leaves(leaf, arg) for arg in node.args or ())
        kwargs = {key: map_leaves(leaf, value) for key, value in node.kwargs.items()}
        fresh.add(changed(node, name=inner[node.name], args=args, kwargs=kwargs))
    returns = tuple(Ref(inner[each]) for each in results)
    output = returns if len(returns) != 1 else returns[0]
    fresh.add(Node(composite.namer.name("output"), OUTPUT, "output", (output,)))
    composite.graphs.append(fresh)
    last = inside[-1].name
    # The call runs where the last node ran that no node between reads.
    place = _first_reader(graph, names, inside[0].name, last)
    graph.add(Node(site, MODULE, composite.name, tuple(map(Ref, reads))), before=place)
    for index, each in enumerate(results):
        value: Value = Ref(site)
        if len(results) > 1:
            item = graph.owner.namer.name(f"{site}_{index}")
            graph.add(Node(item, "function", "operator.getitem", (Ref(site), index)), before=place)
            value = Ref(item)
        users = [user for user in graph.users[each] if user not in names]
        graph.replace_uses(each, value, only=users)
    for node in reversed(inside):
        graph.remove(node.name)


def _first_reader(graph: WorkingGraph, names: dict[str, None], first: str, last: str) -> str | None:
    """Return the first node between that reads one of the nodes; else the one after the last."""
    for name in graph.order.between(first, last):
        if name not in names and any(each in names for each in graph.nodes[name].sources()):
            return name
    return graph.order.after(last)
