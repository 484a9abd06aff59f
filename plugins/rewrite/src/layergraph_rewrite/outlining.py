"""Outlining: nodes of one graph move into a new composite."""

from __future__ import annotations

from collections.abc import Collection, Sequence

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
)
from layergraph.ir.regions import check_regions
from layergraph_rewrite.calls import Site
from layergraph_rewrite.effects import Effect, effect_of, may_pass
from layergraph_rewrite.errors import EditError
from layergraph_rewrite.nesting import adopt, rename
from layergraph_rewrite.working import WorkingGraph, WorkingLayer, changed
from layergraph_rewrite.workspace import Workspace

Place = tuple[WorkingLayer, str]
"""A node: the layer of its graph, and its name."""


def outline(space: Workspace, nodes: Sequence[Place], name: str) -> Site:
    """Move nodes of one graph, with the layers that they call, into a new composite."""
    if not nodes:
        raise EditError("there are no nodes to outline")
    owner = nodes[0][0]
    names = dict.fromkeys(each for _, each in nodes)
    if any(each is not owner for each, _ in nodes):
        raise EditError("nodes of several graphs cannot be one composite; inline first")
    graphs = [graph for graph in owner.graphs if any(each in graph for each in names)]
    for each in _outer_states(space, graphs, names):
        del names[each]
    if not names:
        raise EditError("the nodes only read tensors of other layers; there is nothing to outline")
    for graph in graphs:
        _check_outline(space, graph, names)
    counts = {
        len(
            {
                source
                for node in graph
                if node.name in names
                for source in node.sources()
                if source not in names
            }
        )
        for graph in graphs
    }
    if len(counts) != 1:
        raise EditError("the nodes read other values in the other mode; they are no composite")
    module = space.module_of(owner)
    composite = WorkingLayer(Implementation(MODULE, children={}))
    composite.training = module.training
    child = adopt(space, module, name, composite)
    owner.is_edited = True
    site = owner.namer.name(child)
    for layer in _called(graphs, names):
        _move_in(space, composite, layer)
    inner: dict[str, str] = {}
    for graph in graphs:
        _outline(space, graph, names, composite, site, inner)
    return Site(owner.name, site)


def _check_outline(space: Workspace, graph: WorkingGraph, names: dict[str, None]) -> None:
    inside = [each for each in graph if each.name in names]
    for node in inside:
        if node.type in (INPUT, OUTPUT):
            raise EditError(f"{node.name!r} is an {node.type}, and cannot be in a composite")
        if node.when is not None:
            raise EditError(f"{node.name!r} has a condition; it cannot be in a composite")
    late = _dependents(graph, names, inside[0].name, inside[-1].name)
    _check_passing(space, graph, names, (inside[0].name, inside[-1].name), late)
    for node in inside:
        for source in node.sources():
            if source in late:
                raise EditError(
                    f"{node.name!r} reads {source!r}, which reads another of the nodes; take it "
                    "along"
                )
    for problem in check_regions(Graph(nodes={node.name: node for node in inside})):
        raise EditError(f"{problem[0]!r} begins or ends a region of which a part stays outside")


def _check_passing(
    space: Workspace,
    graph: WorkingGraph,
    names: Collection[str],
    ends: tuple[str, str],
    late: Collection[str],
) -> None:
    """Refuse nodes in between that cannot move before the outlined ones, or after if late."""
    passed = [effect_of(graph.nodes[each], space.layers) for each in names if each in graph]
    moved: list[Effect] = []
    for name in graph.order.between(*ends):
        if name in names:
            continue
        effect = effect_of(graph.nodes[name], space.layers)
        others = passed if name in late else [*passed, *moved]
        if not all(may_pass(effect, each) for each in others):
            raise EditError(
                f"{name!r} runs between the nodes, and changes a tensor in place, draws random "
                "numbers, or begins or ends a region; take it along"
            )
        if name in late:
            moved.append(effect)


def _outer_states(
    space: Workspace, graphs: Sequence[WorkingGraph], names: dict[str, None]
) -> list[str]:
    """Return the nodes that read a tensor which stays outside: it becomes an input.

    Raises:
        EditError: a node sets such a tensor.
    """
    moved = [each for each in _called(graphs, names) if len(each.parents) == 1]
    inside = {id(each) for layer in moved for each in layer.inside()}
    found: dict[str, None] = {}
    for node in (node for graph in graphs for node in graph if node.name in names):
        if node.type == STATE and id(space.home(node.implementation)[0]) not in inside:
            if node.sets_state:
                raise EditError(
                    f"{node.name!r} sets a tensor of a layer outside; it cannot be in a composite"
                )
            found[node.name] = None
    return list(found)


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
    inner: dict[str, str],
) -> None:
    inside = [graph.nodes[each.name] for each in graph if each.name in names]
    fresh = WorkingGraph(composite, Graph(), space.layers)
    reads = dict.fromkeys(
        source for node in inside for source in node.sources() if source not in names
    )
    # The graphs of both modes have the same inputs, by position.
    known = [node.name for graph in composite.graphs for node in graph if node.type == INPUT]
    known += [composite.namer.name(source) for source in [*reads][len(known) :]]
    given = dict(zip(reads, known, strict=True))
    for new in known:
        fresh.add(Node(new, INPUT, new, ()))
    results = [
        node.name for node in inside if any(each not in names for each in graph.users[node.name])
    ]
    local = dict(given)

    def leaf(value: Value) -> Value:
        return Ref(local[value.node]) if type(value) is Ref else value

    for node in inside:
        if node.name not in inner:
            inner[node.name] = composite.namer.name(node.name)
        local[node.name] = inner[node.name]
        args = tuple(map_leaves(leaf, arg) for arg in node.args or ())
        kwargs = {key: map_leaves(leaf, value) for key, value in node.kwargs.items()}
        fresh.add(changed(node, name=local[node.name], args=args, kwargs=kwargs))
    returns = tuple(Ref(local[each]) for each in results)
    output = returns if len(returns) != 1 else returns[0]
    fresh.add(Node(composite.namer.name("output"), OUTPUT, "output", (output,)))
    fresh.copy_edge_data(graph, local)
    composite.graphs.append(fresh)
    last = inside[-1].name
    place = graph.order.after(last)
    for late in _dependents(graph, names, inside[0].name, last):
        graph.order.remove(late)
        graph.order.insert(late, before=place)
    place = graph.order.after(last)
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


def _dependents(graph: WorkingGraph, names: Collection[str], first: str, last: str) -> list[str]:
    """Return the nodes in between that depend on one of the nodes, in order."""
    found: dict[str, None] = {}
    for name in graph.order.between(first, last):
        if name in names:
            continue
        if any(each in names or each in found for each in graph.nodes[name].sources()):
            found[name] = None
    return list(found)
