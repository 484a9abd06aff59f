"""The tensors of layers whose type or attributes are new."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from layergraph.errors import ArgumentError, BuildError, LayergraphError
from layergraph.ir import Implementation, Ir, TensorSpec, Value
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
    before: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Give a leaf the tensors that its type and attributes ask for.

    A tensor is the given one, else the one that it had, if that has the right shape, else one that
    the constructor of the layer makes when it is read.

    Args:
        layer: the leaf, as it is now.
        given: tensors by name.
        has_state: whether the edit follows the tensors.
        before: the shapes of the tensors that it had; None: they are read.

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
    held, layer.sources = layer.sources, {}
    layer.tensors = _specs(layer.tensors, shapes, held)
    if not has_state:
        return
    for name, shape in shapes.items():
        if name in given:
            _check_shape(layer, name, given[name], shape)
            layer.sources[name] = Source.of(given[name])
        elif name in held and _shape(before, name, held[name]) == shape:
            layer.sources[name] = held[name]
        else:
            layer.sources[name] = Source(functools.partial(_initial, fresh, name))


def _shape(
    known: Mapping[str, tuple[int, ...]] | None, name: str, source: Source
) -> tuple[int, ...]:
    """Return the shape of a tensor, which is read only if nothing else says its shape."""
    return known[name] if known and name in known else tuple(source.read().shape)


def _check_shape(layer: WorkingLayer, name: str, given: object, shape: tuple[int, ...]) -> None:
    found = getattr(given, "shape", None)  # a function computes the tensor later
    if found is not None and tuple(found) != shape:
        raise ArgumentError(
            f"{name!r} of {layer.name!r} has the shape {shape}; the given one has {tuple(found)}"
        )


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


def known_shapes(layer: WorkingLayer) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of the tensors that a leaf has; None if no installed package knows it."""
    try:
        return _shapes(Implementation(layer.type, dict(layer.data), name="root"))
    except LayergraphError:
        return None


def has_tensors(layer: WorkingLayer) -> bool:
    """Return whether a layer itself has tensors that state dicts hold."""
    if layer.sources or layer.tensors:
        return True
    if layer.children is not None:
        return False
    shapes = known_shapes(layer)
    return shapes is None or bool(shapes)


def default(layer: WorkingLayer, name: str) -> Value:
    """Return the default of an attribute that a leaf does not state; None if there is none."""
    if layer.children is not None:
        return None
    defaults = _defaults.get(layer.type)
    if defaults is None:
        try:
            leaf = Implementation(layer.type, dict(layer.data), name="root")
            made = _converter().convert(Ir([leaf]), device="meta")
            parameters = inspect.signature(type(made)).parameters.values()
        except (LayergraphError, TypeError, ValueError):
            parameters = {}.values()  # only a format or a back end knows the type
        defaults = {
            each.name: each.default for each in parameters if each.default is not each.empty
        }
        _defaults[layer.type] = defaults
    return defaults.get(name)


_defaults: dict[str, dict[str, Value]] = {}


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
