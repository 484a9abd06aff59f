"""Tensors of layers with a new type or new attributes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from layergraph.errors import ArgumentError, LayergraphError, UnknownTypeError
from layergraph.ir import Implementation, Ir, Packing, TensorSpec, Value
from layergraph_rewrite.sources import Source

if TYPE_CHECKING:
    import torch

    from layergraph.ir2torch import Ir2Torch
    from layergraph_rewrite.terms import Given
    from layergraph_rewrite.working import WorkingLayer


def set_tensors(
    layer: WorkingLayer,
    given: Mapping[str, Given] | None,
    *,
    has_state: bool,
    near: Iterable[WorkingLayer],
    before: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Set the tensors of a leaf as its type and attributes require.

    A tensor is the given one; else the old one, if it has the right shape; else the constructor
    makes it at the first access, with the dtype and device of the layer's other tensors or of its
    neighbours.

    Args:
        layer: the leaf, with its new attributes.
        given: tensors by name, or functions that compute them, without an argument or from the old
            tensor of that name.
        has_state: whether the edit has a state dict.
        near: the layers around it, the nearest ones first.
        before: the shapes of the old tensors; None to read the tensors for their shapes.

    Raises:
        ArgumentError: the layer has no tensor of a given name or shape, or no old tensor for a
            function.
        BuildError: the attributes do not fit the type.
    """
    try:
        made = _made(layer)
    except UnknownTypeError:  # only a format or a back end knows the type
        given_sources = {
            name: _source(layer, name, each, layer.sources) for name, each in (given or {}).items()
        }
        layer.sources = {**layer.sources, **given_sources}
        return
    given = dict(given or {})
    for name in given:
        if name not in made:
            listed = ", ".join(made) or "none"
            raise ArgumentError(
                f"{layer.name!r}, a {layer.type}, has no tensor {name!r}; it has {listed}"
            )
        _check_shape(layer, name, given[name], tuple(made[name].shape))
    held, layer.sources = layer.sources, {}
    had = {*held, *(before or ())}
    is_bare = not had and any(each.is_floating_point() for each in made.values())
    like = _floating(near) if is_bare else None
    layer.tensors = _specs(layer.tensors, made, given, had, like)
    if not has_state:
        return
    if like is None and held:
        like = _Like(None, next(iter(held.values())))
    fresh = functools.cache(functools.partial(_fresh, layer.type, layer.data, layer.tensors, like))
    for name, tensor in made.items():
        if name in given:
            layer.sources[name] = _source(layer, name, given[name], held)
        elif name in held and _shape(before, name, held[name]) == tuple(tensor.shape):
            layer.sources[name] = held[name]
        else:
            layer.sources[name] = Source(functools.partial(_initial, fresh, name))


def _source(layer: WorkingLayer, name: str, given: Given, held: Mapping[str, Source]) -> Source:
    if isinstance(given, Source):
        return given
    if not callable(given):
        return Source(lambda: given, keeps=False)
    if not _takes_argument(given):
        return Source(given)  # type: ignore[arg-type]
    if name not in held:
        raise ArgumentError(
            f"{layer.name!r} had no {name!r} from which the function could compute the new one; "
            "give a tensor, or a function without an argument"
        )
    old = held[name]
    return Source(lambda: given(old.read()))  # type: ignore[call-arg]


def _takes_argument(function: Callable[..., torch.Tensor]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True  # a function of torch itself, as torch.sign
    return any(
        each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        for each in parameters
    )


class _Like(NamedTuple):
    """A tensor of a neighbour: its dtype as a spec states it, and its source."""

    dtype: str | None
    source: Source | None


def _floating(layers: Iterable[WorkingLayer]) -> _Like | None:
    """Return the first floating-point tensor of some layers; None if they have none."""
    for layer in layers:
        try:
            made = _made(layer) if layer.children is None else {}
        except LayergraphError:
            continue
        usual = TensorSpec()
        for name, tensor in made.items():
            if tensor.is_floating_point():
                return _Like(layer.tensors.get(name, usual).dtype, layer.sources.get(name))
        for name, spec in layer.tensors.items():
            if name not in made and (spec.dtype is None or "float" in spec.dtype):
                return _Like(spec.dtype, layer.sources.get(name))
    return None


def _shape(
    known: Mapping[str, tuple[int, ...]] | None, name: str, source: Source
) -> tuple[int, ...]:
    """Return the shape of a tensor; read the tensor only if its shape is not known otherwise."""
    return known[name] if known and name in known else tuple(source.read().shape)


def _check_shape(layer: WorkingLayer, name: str, given: object, shape: tuple[int, ...]) -> None:
    found = getattr(given, "shape", None)  # a function computes the tensor later
    if found is not None and tuple(found) != shape:
        raise ArgumentError(
            f"{name!r} of {layer.name!r} has the shape {shape}; the given one has {tuple(found)}"
        )


def _specs(
    specs: Mapping[str, TensorSpec],
    made: Mapping[str, torch.Tensor],
    given: Mapping[str, object],
    had: Collection[str],
    like: _Like | None,
) -> dict[str, TensorSpec]:
    """Return the specs of the tensors of a layer, from its old specs.

    A new tensor has the dtype of the others, or else of a neighbour, and is frozen like the others.
    """
    kept = {name: spec for name, spec in specs.items() if name in made}
    first = next((spec for spec in specs.values() if spec.kind is None), None) if had else None
    for name, each in given.items():
        packed = _packing(each)
        if packed is not None or name in kept:
            # A function gives a plain tensor.
            kept[name] = replace(kept.get(name, TensorSpec()), packed=packed)
    for name, tensor in made.items():
        if name in had or not tensor.is_floating_point():
            continue
        if first is not None:
            kept[name] = TensorSpec(dtype=first.dtype, requires_grad=first.requires_grad)
        elif like is not None:
            kept[name] = TensorSpec(dtype=like.dtype)
        dtype = getattr(given.get(name), "dtype", None)
        if dtype is not None:
            stated = None if dtype == tensor.dtype else str(dtype).removeprefix("torch.")
            kept[name] = replace(kept.get(name, TensorSpec()), dtype=stated)
    return {name: spec for name, spec in kept.items() if spec.said()}


def _packing(given: object) -> Packing | None:
    """Return the parts of a packed tensor; None for any other value."""
    import torch

    from layergraph.tensors.state import describe

    kinds = _converter().hooks.tensor_kinds
    if not isinstance(given, torch.Tensor) or kinds.flatten(given) is None:
        return None
    return describe(given, "the tensor", persistent=True, whole=False, kinds=kinds).packed


def known_shapes(layer: WorkingLayer) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of the tensors that a leaf has; None if no installed package knows it."""
    try:
        return {name: tuple(each.shape) for name, each in _made(layer).items()}
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


def defaults_of(layer: WorkingLayer) -> dict[str, Value]:
    """Return the defaults of the attributes of a leaf, by name; a composite has none."""
    if layer.children is not None:
        return {}
    defaults = _defaults.get(layer.type)
    if defaults is None:
        try:
            leaf = Implementation(layer.type, dict(layer.data), name="root")
            made = _converter().convert(Ir([leaf]), device="meta")
            defaults = signature_defaults(type(made))
        except LayergraphError:
            defaults = {}  # only a format or a back end knows the type
        _defaults[layer.type] = defaults
    return defaults


def signature_defaults(code: Callable[..., object]) -> dict[str, Value]:
    """Return the defaults of the parameters of a function or class; none if it does not tell."""
    found: dict[str, Value] = {}
    # nn.LSTM passes all that it gets by name to the class that it extends.
    for each in code.__mro__ if isinstance(code, type) else [code]:
        try:
            parameters = inspect.signature(each).parameters.values()
        except (TypeError, ValueError):
            break
        for one in parameters:
            if one.default is not one.empty:
                found.setdefault(one.name, one.default)
        if all(one.kind is not one.VAR_KEYWORD for one in parameters):
            break
    return found


_defaults: dict[str, dict[str, Value]] = {}


def _initial(fresh: Callable[[], dict[str, torch.Tensor]], name: str) -> torch.Tensor:
    return fresh()[name]


@functools.cache
def _converter() -> Ir2Torch:
    # Imported on first use, because it needs torch.
    from layergraph.ir2torch import get_default_converter

    return get_default_converter()


# A cache, because making a layer, even on meta, is a thousand times slower than a look-up, and
# rules ask for many equal ones.
_known: dict[str, dict[str, torch.Tensor]] = {}
_MOST = 10_000


def _made(layer: WorkingLayer) -> dict[str, torch.Tensor]:
    """Return the tensors of a leaf that state dicts hold, on the meta device."""
    key = repr((layer.type, layer.data))
    known = _known.get(key)
    if known is None:
        leaf = Implementation(layer.type, dict(layer.data), name="root")
        listed = _converter().tensors(Ir([leaf]))
        known = {name: tensor for name, tensor, persists in listed if persists}
        if len(_known) >= _MOST:
            _known.clear()
        _known[key] = known
    return known


def _fresh(
    kind: str, data: Mapping[str, Value], specs: Mapping[str, TensorSpec], like: _Like | None
) -> dict[str, torch.Tensor]:
    """Return the state dict of a new layer, on the device of a neighbour."""
    dtypes = {name: TensorSpec(dtype=spec.dtype) for name, spec in specs.items()}
    leaf = Implementation(kind, dict(data), name="root", tensors=dtypes)
    source = None if like is None else like.source
    device = None if source is None else source.read().device
    return dict(_converter().convert(Ir([leaf]), device=device).state_dict())
