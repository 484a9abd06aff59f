"""Passes that remove layers that return their input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layergraph.ir import Ref
from layergraph_passes.modes import is_the_mode, nodes_of, source_of
from layergraph_rewrite.effects import Effect, effect_of

if TYPE_CHECKING:
    from layergraph.ir import Node
    from layergraph_rewrite import Call, Edit

_DROPOUTS = (
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "alphadropout",
    "featurealphadropout",
)
_FUNCTIONS = {
    f"torch.nn.functional.{name}"
    for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout")
} | {"torch.nn.functional.feature_alpha_dropout"}


def remove_dropout(edit: Edit) -> None:
    """Remove dropout, which does nothing in evaluation mode.

    It removes layers, and the functions of ``torch.nn.functional`` that follow the mode. Then the
    model drops nothing in training mode either.

    A dropout that drops in evaluation mode too stays, with the reason in the report.
    """
    for call in list(edit):
        if call.type in _DROPOUTS and call.layer is not None:
            _remove(edit, call)
        elif call.function in _FUNCTIONS:
            reason = _drops_in_evaluation(call)
            if reason:
                edit.report.refuse(call, reason)
            else:
                _remove(edit, call)


def remove_identity(edit: Edit) -> None:
    """Remove identities, and dropout with a probability of 0.

    The new model computes the same, in both modes.
    """
    for call in list(edit):
        if call.type == "identity" and call.layer is not None:
            _remove(edit, call)
        elif call.type in _DROPOUTS and call.layer is not None and call.attributes.get("p") == 0:
            if _is_changed_in_place(edit, call):
                edit.report.refuse(call, "a node changes its value, a copy in training, in place")
            else:
                _remove(edit, call)


def _remove(edit: Edit, call: Call) -> None:
    if any(node.when is not None for node in nodes_of(call)):
        edit.report.refuse(call, "it runs under a condition, and gives None otherwise")
    elif source_of(call) is None:
        edit.report.refuse(call, "its first argument is no value of a node")
    else:
        edit.report.add(call, "removed")
        edit.remove(call)


def _is_changed_in_place(edit: Edit, call: Call) -> bool:
    here, _ = call.spot
    return any(
        effect_of(node, edit.layers) & Effect.WRITES
        for graph in here.owner.graphs
        for node in graph
    )


def _drops_in_evaluation(call: Call) -> str:
    """Return why a function call drops in evaluation mode; empty if it does not."""
    here, name = call.spot
    graph = here.owner.graphs[-1]
    if name not in graph:
        return ""  # the graph for evaluation does without it
    node = graph.nodes[name]
    rate, training = _argument(node, 1, "p", 0.5), _argument(node, 2, "training", True)
    if rate == 0 or training is False:
        return ""
    if type(training) is Ref and is_the_mode(graph.nodes[training.node]):
        return ""
    return "it drops in evaluation mode too"


def _argument(node: Node, position: int, name: str, default: object) -> object:
    args = node.args or ()
    return args[position] if position < len(args) else node.kwargs.get(name, default)
