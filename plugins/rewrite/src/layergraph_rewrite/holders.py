"""Layers whose tensors other layers or nodes use too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layergraph.ir import STATE

if TYPE_CHECKING:
    from layergraph_rewrite.edit import Edit


def bound_layers(edit: Edit) -> dict[str, str]:
    """Return the layers whose tensors are tied, or read by a node, each with the reason.

    A change of such a tensor would change other results.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph_rewrite.holders import bound_layers
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
        >>> model[1].weight = model[0].weight
        >>> bound_layers(lg.edit(lg.to_ir(model)))["0"]
        "'weight' is tied to 'weight' of '1'"
    """
    found: dict[str, str] = {}
    for layer in edit.layers.values():
        for name, spec in layer.tensors.items():
            if spec.tied is not None:
                home, tensor = edit.home(spec.tied)
                found[home.name] = f"{tensor!r} is tied to {name!r} of {layer.name!r}"
                found[layer.name] = f"{name!r} is tied to {tensor!r} of {home.name!r}"
    for graph in edit.working_graphs():
        for node in graph:
            if node.type == STATE:
                home, tensor = edit.home(node.implementation)
                found[home.name] = f"{graph.owner.name}:{node.name} reads {tensor!r}"
    return found
