"""The conditions under which a match may be replaced without another result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layergraph_rewrite.effects import Effect, effect_of, may_pass
from layergraph_rewrite.match import Match, Matcher

if TYPE_CHECKING:
    from layergraph_rewrite.edit import Edit
    from layergraph_rewrite.working import WorkingGraph


def problem(edit: Edit, match: Match, matcher: Matcher, *, shared: str) -> str | None:
    """Return the reason why a match must not be replaced; None if it may be."""
    conditions = {repr(call.node.when) for call in match.calls}
    if len(conditions) > 1:
        return "its calls run under different conditions"
    return (
        _shared_problem(match, shared)
        or _mode_problem(match, matcher)
        or _order_problem(edit, match)
    )


def _shared_problem(match: Match, shared: str) -> str | None:
    if shared == "copy":
        return None
    inside = {call.site for call in match.calls}
    for call in match.calls:
        if call.layer is None or not call.has_tensors:
            continue
        others = [each for each in match.edit.calls(call.layer) if each.site not in inside]
        if others:
            return f"{others[0].site} calls {call.layer!r} too"
    return None


def unshare(edit: Edit, match: Match) -> None:
    """Give the calls of a match copies of layers with tensors that other nodes call too."""
    inside = {call.site for call in match.calls}
    for call in match.calls:
        if call.layer is None or not call.has_tensors:
            continue
        if any(each.site not in inside for each in edit.calls(call.layer)):
            edit.unshare(call)


def _mode_problem(match: Match, matcher: Matcher) -> str | None:
    """Return a reason if the graphs for training and evaluation differ in the match."""
    sites = [call.site for call in match.calls]
    for call in match.calls:
        here, name = call.spot
        for other in here.owner.graphs:
            if other is here or name not in other:
                continue
            root = match.root.site
            again = matcher.at(other, root.node) if root.node in other else None
            if not isinstance(again, Match) or [each.site for each in again.calls] != sites:
                return "the graphs for training and evaluation differ here"
    return None


def _order_problem(edit: Edit, match: Match) -> str | None:
    """Return a reason if a node between the calls may not change places with them."""
    by_graph: dict[int, tuple[WorkingGraph, list[str]]] = {}
    for call in match.calls:
        graph, name = call.spot
        by_graph.setdefault(id(graph), (graph, []))[1].append(name)
    for graph, names in by_graph.values():
        ordered = sorted(names, key=graph.order.label)
        effects = [effect_of(graph.nodes[name], edit.layers) for name in ordered]
        for name in graph.order.between(ordered[0], ordered[-1]):
            if name in names:
                continue
            effect = effect_of(graph.nodes[name], edit.layers)
            if not all(may_pass(effect, each) for each in effects):
                return f"{name!r} runs between its calls, and may change the values or their order"
        for name, effect in zip(ordered, effects, strict=True):
            reason = _write_problem(graph, names, name, effect)
            if reason is not None:
                return reason
    return None


def _write_problem(graph: WorkingGraph, names: list[str], name: str, effect: Effect) -> str | None:
    """Return a reason if a call of the match changes a value in place that other nodes read."""
    if not effect & Effect.WRITES:
        return None
    for source in graph.nodes[name].sources():
        if source in names:
            continue
        for user in graph.users[source]:
            if user not in names and graph.order.is_before(name, user):
                return f"{name!r} changes {source!r} in place, which {user!r} reads"
        if graph.nodes[source].type == "input":
            return f"{name!r} changes the input {source!r} in place"
    return None
