"""Ties between tensors of layers under edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from layergraph_rewrite.errors import EditError
from layergraph_rewrite.parts import copy_parts
from layergraph_rewrite.sources import Source
from layergraph_rewrite.working import WorkingLayer
from layergraph_rewrite.workspace import Workspace


def ties_of(space: Workspace, layer: WorkingLayer) -> dict[str, list[tuple[WorkingLayer, str]]]:
    """Return, for each tensor of a layer, the tensors that it is tied to."""
    groups: dict[tuple[int, str], list[tuple[WorkingLayer, str]]] = {}
    mine: dict[str, tuple[int, str]] = {}
    for each in space.tied_layers():
        for name, spec in each.tensors.items():
            if spec.tied is not None:
                home, tensor = space.home(spec.tied)
                group = groups.setdefault((id(home), tensor), [(home, tensor)])
                group.append((each, name))
    for anchor, members in groups.items():
        mine |= {name: anchor for each, name in members if each is layer}
    return {
        name: [pair for pair in groups[anchor] if pair != (layer, name)]
        for name, anchor in mine.items()
    }


def update_tied(
    space: Workspace,
    layer: WorkingLayer,
    tied: Mapping[str, list[tuple[WorkingLayer, str]]],
    before: Mapping[str, Source],
) -> None:
    """Give the new sources of a layer to the tensors that were tied to its own.

    Args:
        space: the layers under edit.
        layer: the layer, with its new sources.
        tied: for each tensor, the tensors that it was tied to before the edit.
        before: the sources of the layer before the edit.

    Raises:
        EditError: a tied tensor is gone, or has another shape.
    """
    if space.has_state:
        for name, others in tied.items():
            _check_tied(layer, name, others[0][0].name, before)
    for name, others in tied.items():
        if layer.sources.get(name) is not before.get(name):
            for other, tensor in others:
                other.sources = {**other.sources, tensor: layer.sources[name]}
                copy_parts(layer, name, other, tensor)


def _check_tied(layer: WorkingLayer, name: str, other: str, before: Mapping[str, Source]) -> None:
    source, old = layer.sources.get(name), before.get(name)
    changes = source is not old and source is not None and old is not None
    if source is None or (changes and source.read().shape != old.read().shape):  # type: ignore[union-attr]
        raise EditError(
            f"{name!r} of {layer.name!r} is tied to a tensor of {other!r}, and would change "
            "its shape or go; untie it first"
        )


def untie(space: Workspace, layer: WorkingLayer, tensor: str) -> None:
    """Untie a tensor of a layer from the others. It keeps its values.

    Raises:
        EditError: the tensor is not tied.
    """
    spec = layer.tensors.get(tensor)
    others = ties_of(space, layer).get(tensor)
    if others is None:
        raise EditError(f"{tensor!r} of {layer.name!r} is tied to no other tensor")
    if spec is not None and spec.tied is not None:
        layer.tensors[tensor] = replace(spec, tied=None)
    else:  # the others are tied to this one: the next of them becomes the one to tie to
        first, *rest = others
        first[0].tensors[first[1]] = replace(first[0].tensors[first[1]], tied=None)
        key = space.key(*first)
        for each, name in rest:
            each.tensors[name] = replace(each.tensors[name], tied=key)
    given = [each.sources[name] for each, name in others if name in each.sources]
    if tensor not in layer.sources and given:
        layer.sources = {**layer.sources, tensor: given[0]}
    if tensor in layer.sources:
        source = layer.sources[tensor]
        for other, name in others:  # a state dict may have only one key of a tied tensor
            other.sources.setdefault(name, source)
        layer.sources = {**layer.sources, tensor: Source(lambda: source.read().clone())}
