"""The edit that replaces the match of a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layergraph.ir import Node, Ref, Value
from layergraph_rewrite import nesting
from layergraph_rewrite.calls import Call
from layergraph_rewrite.places import Place, Places, child_name
from layergraph_rewrite.terms import Applied, Layer, renamed
from layergraph_rewrite.working import WorkingLayer

if TYPE_CHECKING:
    from layergraph_rewrite.match import Match


class MatchEdits(Places):
    """The edit of a match; see :class:`~layergraph_rewrite.Edit`."""

    def replace_match(self, match: Match, result: Any) -> None:
        """Replace the calls of a match by a call or a value: see :class:`Rule`.

        Raises:
            EditError: a value is not in the graph of the last call.
        """
        owner, name = self._find(match.root)
        spots = [call.spot for call in match.calls]
        layers = [graph.layer_of(graph.nodes[n]) for graph, n in spots if graph.nodes[n].is_call]
        if isinstance(result, Applied):
            term, old = _renamed_like(result, match, layers)
            places = [
                Place(graph, name, graph.nodes[name].when, None, Node("", "", ""))
                for graph in owner.graphs_with(name)
            ]
            value: Value = Ref(self._make(owner, places, term, replaces=old))
        else:
            value = self._value(owner, result)
        owner.is_edited = True
        for graph in owner.graphs_with(name):
            self._check_order(graph, name, value, graph.users[name])
            graph.replace_uses(name, value)
            graph.remove(name)
        for call in sorted(match.calls[1:], key=_last_first):
            for graph in call.spot[0].owner.graphs_with(call.spot[1]):
                if not graph.users[call.spot[1]]:
                    graph.remove(call.spot[1])
                    graph.owner.is_edited = True
        for layer in layers:
            if not layer.calls:
                nesting.drop_unused(self._space, layer)


def _renamed_like(
    term: Applied, match: Match, layers: list[WorkingLayer]
) -> tuple[Applied, WorkingLayer | None]:
    """Return a term with the name of the layer that it replaces, and that layer.

    It replaces the only layer of the match, or the only one of its type, if no other node calls it.
    """
    operation = term.operation
    if not isinstance(operation, Layer) or operation.name is not None:
        return term, None
    alike = (
        layers if len(layers) == 1 else [each for each in layers if each.type == operation.types[0]]
    )
    spots = {call.spot[1] for call in match.calls}
    if len(alike) != 1 or any(name not in spots for _, name in alike[0].calls):
        return term, None
    owner = match.root.spot[0].owner
    child = child_name(owner, alike[0])
    if child is None or any(
        user not in spots
        for graph, name in alike[0].calls
        if name != match.root.site.node
        for user in graph.users[name]
    ):
        return term, None
    return Applied(renamed(operation, child), term.args, term.kwargs), alike[0]


def _last_first(call: Call) -> int:
    graph, name = call.spot
    return -graph.order.label(name)
