"""The tensors of layers whose type or attributes are new."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from layergraph.errors import ArgumentError, BuildError, LayergraphError
from layergraph.ir import Implementation, Ir, TensorSpec
from layergraph_rewrite.sources import Source

if TYPE_CHECKING:
    import torch

    from layergraph.ir2torch import Ir2Torch
    from layergraph_rewrite.working import WorkingLayer


def set_tensors(
    layer: WorkingLayer,
    given: Mapping[str, torch.Tensor | Callable[[], torch.Tensor] | Source] | None,
    *,
    has_state: bool,
) -> None:
    """Give a leaf the tensors that its type and attributes ask for.

    A tensor is the given one, else the one that it had, if that has the right shape, else one that
    the constructor of the layer makes when it is read.

    Args:
        layer: the leaf, as it is now.
        given: tensors by name.
        has_state: whether the edit follows the tensors.

    Raises:
        ArgumentError: the layer has no tensor of a given name, or of its shape.
        BuildError: the attributes do not fit the type.
    """
    leaf = Implementation(layer.type, dict(layer.data), name="root")
    try:
        shapes = _shapes(leaf)
    except BuildError as error:
        if layer.type not in str(error) or "no handler" not in str(error).lower():
            raise
        shapes = None  # only a format or a back end knows the type
    given = dict(given or {})
    if shapes is None:
        given_sources = {name: Source.of(each) for name, each in given.items()}
        layer.sources = {**layer.sources, **given_sources}
        return
    for name in given:
        if name not in shapes:
            listed = ", ".join(shapes) or "none"
            raise ArgumentError(
                f"{layer.name!r}, a {layer.type}, has no tensor {name!r}; it has {listed}"
            )
    fresh = functools.cache(functools.partial(_fresh, leaf))
    before, layer.sources = layer.sources, {}
    layer.tensors = _specs(layer.tensors, shapes, before)
    if not has_state:
        return
    for name, shape in shapes.items():
        source = None
        if name in given:
            source = Source.of(given[name])
            if hasattr(given[name], "shape") and tuple(given[name].shape) != shape:  # type: ignore[union-attr]
                raise ArgumentError(
                    f"{name!r} of {layer.name!r} has the shape {shape}; the given one has "
                    f"{tuple(given[name].shape)}"  # type: ignore[union-attr]
                )
        elif name in before and tuple(before[name].read().shape) == shape:
            source = before[name]
        layer.sources[name] = source or Source(functools.partial(_initial, fresh, name))


def _specs(
    specs: Mapping[str, TensorSpec], shapes: Collection[str], before: Collection[str]
) -> dict[str, TensorSpec]:
    """Return the specs of the tensors of a layer, from those of the tensors that it had before."""
    kept = {name: spec for name, spec in specs.items() if name in shapes}
    first = next((spec for spec in specs.values() if spec.kind is None), None)
    if before and first is not None and (first.dtype or first.requires_grad is False):
        # A tensor that the layer did not have has the dtype of the others, and is frozen with them.
        for name in shapes:
            if name not in before:
                kept[name] = TensorSpec(dtype=first.dtype, requires_grad=first.requires_grad)
    return kept


def has_tensors(layer: WorkingLayer) -> bool:
    """Return whether a layer itself has tensors that state dicts hold."""
    if layer.sources or layer.tensors:
        return True
    if layer.children is not None:
        return False
    try:
        return bool(_shapes(Implementation(layer.type, dict(layer.data), name="root")))
    except LayergraphError:
        return True  # only a format or a back end knows the type


def _initial(fresh: Callable[[], dict[str, torch.Tensor]], name: str) -> torch.Tensor:
    return fresh()[name]


@functools.cache
def _converter() -> Ir2Torch:
    # Imported on first use, because it needs torch.
    from layergraph.ir2torch import get_default_converter

    return get_default_converter()


# To make a layer, even on meta, takes a thousand times as long as to look it up; a rule asks for
# many alike.
_known: dict[str, dict[str, tuple[int, ...]]] = {}
_MOST = 10_000


def _shapes(leaf: Implementation) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a leaf that state dicts hold."""
    key = repr((leaf.type, leaf.data))
    known = _known.get(key)
    if known is None:
        listed = _converter().tensors(Ir([leaf]))
        known = {name: tuple(tensor.shape) for name, tensor, persists in listed if persists}
        if len(_known) >= _MOST:
            _known.clear()
        _known[key] = known
    return known


def _fresh(leaf: Implementation) -> dict[str, torch.Tensor]:
    """Return the state dict of a new layer."""
    return dict(_converter().convert(Ir([leaf])).state_dict())
