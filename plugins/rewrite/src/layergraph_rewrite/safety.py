"""Checks that the replacement of a match does not change other results."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from layergraph.ir import INPUT, OUTPUT, STATE, Node
from layergraph_rewrite.aliases import aliases, leaf_shares, shares, written
from layergraph_rewrite.calls import Call, Site
from layergraph_rewrite.effects import Effect, effect_of
from layergraph_rewrite.match import Match, Matcher, Spot
from layergraph_rewrite.terms import Applied, Existing, Layer

if TYPE_CHECKING:
    from layergraph_rewrite.edit import Edit
    from layergraph_rewrite.working import WorkingGraph


def problem(edit: Edit, match: Match, matcher: Matcher, *, shared: str) -> str | None:
    """Return the reason why a match must not be replaced; None if it may be."""
    root = match.root.node
    if any(call.node.when != root.when for call in match.calls):
        return "its calls run under different conditions"
    return (
        _shared_problem(edit, match, shared)
        or _mode_problem(edit, match, matcher)
        or _order_problem(edit, match)
        or _write_problem(edit, match)
    )


# Layers that other nodes call.


def _shared_problem(edit: Edit, match: Match, shared: str) -> str | None:
    if shared == "copy":
        return None
    for call in match.calls:
        other = _other_caller(edit, match, call)
        if other is not None:
            return f"{other} calls {call.layer!r} too"
    return None


def _other_caller(edit: Edit, match: Match, call: Call) -> Site | None:
    """Return a node outside a match that calls the same layer with tensors; or None."""
    if call.layer is None or len(edit.layers[call.layer].calls) == 1:
        return None
    inside = {each.site for each in match.calls}
    others = (each.site for each in edit.calls(call.layer) if each.site not in inside)
    other = next(others, None)
    return other if other is not None and call.has_tensors else None


def unshare(edit: Edit, match: Match) -> list[tuple[Spot, str]]:
    """Copy the layers with tensors that other nodes call too, for the calls of a match.

    Returns:
        The calls that have copies now, each with the name of the layer that it called.
    """
    copied: list[tuple[Spot, str]] = []
    for call in match.calls:
        if call.layer is not None and _other_caller(edit, match, call) is not None:
            edit.unshare(call)
            copied.append((call.spot, call.layer))
    return copied


# Graphs for training and evaluation.


def _mode_problem(edit: Edit, match: Match, matcher: Matcher) -> str | None:
    """Return a reason if the graphs for training and evaluation differ in the match."""
    root = match.root
    for here in {id(call.spot[0]): call.spot[0] for call in match.calls}.values():
        mine = [call for call in match.calls if call.spot[0] is here]
        for other in here.owner.graphs:
            if other is here or not any(call.site.node in other for call in mine):
                continue
            again = matcher.at(other, root.site.node) if root.site.node in other else None
            if not isinstance(again, Match) or not _is_like(again, match):
                return "the graphs for training and evaluation differ here"
            reason = _order_problem(edit, again) or _write_problem(edit, again)
            if reason is not None:
                return reason
    return None


def _is_like(one: Match, other: Match) -> bool:
    return len(one.calls) == len(other.calls) and all(
        (a.site, a.args, a.kwargs, a.node.when) == (b.site, b.args, b.kwargs, b.node.when)
        for a, b in zip(one.calls, other.calls, strict=True)
    )


# The order of effects.


def _order_problem(edit: Edit, match: Match) -> str | None:
    """Return a reason if a node between the calls cannot be reordered with them."""
    if len(match.calls) == 1:
        return None
    layers, spots = edit.layers, {call.spot for call in match.calls}
    between = [spot for spot in _between(match) if spot not in spots]
    if not between:
        return None
    draws = any(effect_of(call.node, layers) & Effect.DRAWS for call in match.calls)
    touched = _touched(match, layers)
    for graph, name in between:
        node = graph.nodes[name]
        effect = effect_of(node, layers)
        if effect & Effect.REGION or (draws and effect & Effect.DRAWS):
            return f"{name!r} runs between its calls, and {_does(effect)}"
        if effect & Effect.WRITES:
            known = touched.get(id(graph))
            if (
                known is None
                or len(touched) > 1
                or node.sets_state
                or known & {*written(node, layers)}
            ):
                return f"{name!r} runs between its calls, and {_does(effect)}"
    return None


def _does(effect: Effect) -> str:
    if effect & Effect.REGION:
        return "begins or ends a region, or takes gradients"
    return "changes a value in place" if effect & Effect.WRITES else "draws random numbers too"


def _touched(match: Match, layers: Any) -> dict[int, set[str]]:
    """Return the values that the calls read and compute, with their aliases."""
    names: dict[int, tuple[WorkingGraph, set[str]]] = {}
    for call in match.calls:
        graph, name = call.spot
        names.setdefault(id(graph), (graph, set()))[1].update([name, *call.node.sources()])
    return {key: aliases(graph, each, layers) for key, (graph, each) in names.items()}


def _between(match: Match) -> Iterator[Spot]:
    """Yield the nodes that run after the first call and before the last one."""
    ways = sorted(map(_way, match.calls), key=_position)
    first, last = ways[0], ways[-1]
    while len(first) > 1 and len(last) > 1 and first[1][0] is last[1][0]:
        first, last = first[1:], last[1:]
    for graph, name in reversed(first[1:]):
        yield from _row(graph, graph.order.after(name), None)
    graph, name = first[0]
    yield from _row(graph, graph.order.after(name), last[0][1])
    for graph, name in last[1:]:
        yield from _row(graph, next(iter(graph.order)), name)


def _way(call: Call) -> list[Spot]:
    """Return the chain of composite calls around a call, from the root down."""
    way: list[Spot] = [call.spot]
    while len(way[0][0].owner.calls) == 1:
        way = [*way[0][0].owner.calls, *way]
    return way


def _position(way: list[Spot]) -> list[int]:
    return [graph.order.label(name) for graph, name in way]


def _row(graph: WorkingGraph, first: str | None, last: str | None) -> Iterator[Spot]:
    name = first
    while name is not None and name != last:
        yield graph, name
        name = graph.order.after(name)


# Changes in place.


def _write_problem(edit: Edit, match: Match) -> str | None:
    """Return a reason if a call of the match changes a value that outer nodes read."""
    spots = {call.spot for call in match.calls}
    for call in match.calls:
        graph, name = call.spot
        changed = written(call.node, edit.layers)
        if not changed:
            continue
        for each in sorted(aliases(graph, changed, edit.layers, behind=[name])):
            if graph.nodes[each].type in (INPUT, STATE):
                return f"{name!r} changes {each!r} in place, which others may read"
            for user in graph.users[each]:
                if (graph, user) not in spots and graph.order.is_before(name, user):
                    return f"{name!r} changes {each!r} in place, which {user!r} reads"
    return None


def result_problem(edit: Edit, match: Match, result: Any) -> str | None:
    """Return a reason if a later in-place change would reveal the replacement.

    A new tensor and a view are equal until one of them changes in place.
    """
    graph, name = match.root.spot
    node = match.root.node
    if isinstance(result, Applied):
        values: list[str] = []
        if not _may_share(node, edit.layers) and not _term_shares(result):
            return None
    elif not hasattr(result, "site") or match.root.type == "identity":
        return None
    else:
        values = [result.site.node]
    inside = {call.spot for call in match.calls}
    for each in graph.owner.graphs_with(name):
        known = [value for value in values if value in each]
        if not _is_exposed(edit, each, name, [*known, *node.sources()], inside):
            continue
        reason = _later_write(edit, each, name, [name, *known], set())
        if reason is not None:
            return reason
    return None


def _is_exposed(
    edit: Edit, graph: WorkingGraph, name: str, values: list[str], inside: Collection[Spot]
) -> bool:
    """Return whether outer nodes may read some values after a node, other than through it."""
    return any(
        graph.nodes[each].type in (INPUT, STATE)
        or any(
            (graph, user) not in inside and graph.order.is_before(name, user)
            for user in graph.users[each]
        )
        for each in aliases(graph, values, edit.layers, behind=[name])
    )


def _may_share(node: Node, layers: Any) -> bool:
    if node.is_call:
        layer = layers[node.implementation]
        return bool(layer.graphs) or leaf_shares(layer.type, layer.data)
    return bool(effect_of(node, layers) & Effect.WRITES) or shares(node.implementation)


def _term_shares(term: Applied) -> bool:
    operation = term.operation
    if isinstance(operation, Layer):
        return leaf_shares(operation.types[0], operation.attributes)
    if isinstance(operation, Existing):
        return _may_share(operation.call.node, operation.call.spot[0].layers)
    return shares(operation.names[0]) or operation.names[0].endswith("_")


def _later_write(
    edit: Edit, graph: WorkingGraph, name: str, values: Collection[str], seen: set[int]
) -> str | None:
    """Return a reason if a node after the given one changes a value in place."""
    if id(graph) in seen:
        return None
    seen.add(id(graph))
    shared = aliases(graph, [*values, *graph.nodes[name].sources()], edit.layers)
    for _, each in _row(graph, graph.order.after(name), None):
        node = graph.nodes[each]
        if shared.intersection(written(node, edit.layers)):
            return f"{each!r} changes the value in place later"
        if node.type == OUTPUT and shared.intersection(node.sources()):
            for caller, site in graph.owner.calls:
                reason = _later_write(edit, caller, site, [site], seen)
                if reason is not None:
                    return reason
    return None
