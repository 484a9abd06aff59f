"""Handlers for the losses of torch.nn, including the adaptive softmax."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from torch.overrides import get_overridable_functions

from layergraph import Implementation, Symbol, hookimpl
from layergraph.layers import Layer, LayerTable
from layergraph.literals import torch_value
from layergraph.torch_versions import has

# --- weights: the IR holds their shape, the state dict their values ---


def _shape(name: str) -> Callable[[nn.Module], tuple[int, ...] | None]:
    def read(module: nn.Module) -> tuple[int, ...] | None:
        weights = getattr(module, name)
        return None if weights is None else tuple(weights.shape)

    return read


def _ones(shape: tuple[int, ...] | None) -> torch.Tensor | None:
    return None if shape is None else torch.ones(shape)


# --- the options of a linear cross entropy: a dict without defaults ---


def _options() -> Any:
    from torch.nn.modules.linear_cross_entropy_options import LinearCrossEntropyOptions

    return LinearCrossEntropyOptions


def _read_options(module: nn.Module) -> Any:
    options = module.options
    if not isinstance(options, _options()):
        return options
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {
        field.name: values[field.name]
        for field in fields(options)
        if values[field.name] != field.default
    }


def _write_options(options: Mapping[str, Any] | None) -> Any:
    if options is None:
        return None
    values: dict[str, Any] = {
        name: torch_value(value) if isinstance(value, Symbol) else value
        for name, value in options.items()
    }
    return _options()(**values)


# --- the distance of a triplet margin: the name of a function, or a layer's type and attributes ---

_DISTANCES = LayerTable(
    [
        Layer(nn.CosineSimilarity),
        Layer(nn.PairwiseDistance, readers={"p": lambda module: module.norm}),
    ]
)


@functools.cache
def _functions() -> Mapping[str, Callable[..., Any]]:
    computing = get_overridable_functions()[nn.functional]
    return {
        f"{nn.functional.__name__}.{name}": function
        for name, function in vars(nn.functional).items()
        if not name.startswith("_") and callable(function) and function in computing
    }


def _read_distance(module: nn.Module) -> Any:
    distance: Any = module.distance_function
    if isinstance(distance, nn.Module):
        leaf = _DISTANCES.to_ir(distance)
        if leaf is None:
            return distance  # the row declines, because this is not a plain value
        is_default = leaf == _DISTANCES.to_ir(nn.PairwiseDistance())
        return None if is_default else {"type": leaf.type, **leaf.data}
    return next((name for name, each in _functions().items() if each is distance), distance)


def _write_distance(value: Mapping[str, Any] | str | None) -> Callable[..., Any] | None:
    if value is None:
        return None
    if isinstance(value, str):
        distance = _functions().get(value)
    else:
        data = dict(value)
        distance = _DISTANCES.to_torch(Implementation(data.pop("type"), data))
    if distance is None:
        raise ValueError(f"{value!r} is neither a function of torch.nn.functional nor a distance")
    return distance


# --- the table ---


def _cutoffs(module: Any) -> list[int]:
    # The constructor appends the number of classes.
    cutoffs: list[int] = module.cutoffs[:-1]
    return cutoffs


def _linear_bias(module: Any) -> bool:
    return module.linear.bias is not None


def _loss(
    cls: type[nn.Module], always: Collection[str] = (), weights: Collection[str] = ()
) -> Layer:
    return Layer(
        cls,
        always=["reduction", *always],
        # Deprecated: the constructor turns them into `reduction`.
        never=["size_average", "reduce"],
        readers={name: _shape(name) for name in weights},
        writers=dict.fromkeys(weights, _ones),
    )


def _linear_cross_entropy() -> Layer:
    return Layer(
        nn.LinearCrossEntropyLoss,
        always=["bias", "reduction"],
        readers={
            "in_features": attrgetter("linear.in_features"),
            "bias": _linear_bias,
            "weight": _shape("weight"),
            "options": _read_options,
        },
        writers={"weight": _ones, "options": _write_options},
    )


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes, each with its constructor arguments."""
    return [
        Layer(
            nn.AdaptiveLogSoftmaxWithLoss,
            always=["div_value", "head_bias"],
            readers={"cutoffs": _cutoffs},
        ),
        _loss(nn.BCELoss, weights=["weight"]),
        _loss(nn.BCEWithLogitsLoss, weights=["weight", "pos_weight"]),
        _loss(nn.CosineEmbeddingLoss, always=["margin"]),
        _loss(nn.CrossEntropyLoss, weights=["weight"]),
        _loss(nn.CTCLoss, always=["blank"]),
        _loss(nn.GaussianNLLLoss),
        _loss(nn.HingeEmbeddingLoss, always=["margin"]),
        _loss(nn.HuberLoss, always=["delta"]),
        _loss(nn.KLDivLoss),
        _loss(nn.L1Loss),
        *([_linear_cross_entropy()] if has("linear_cross_entropy") else []),
        _loss(nn.MarginRankingLoss, always=["margin"]),
        _loss(nn.MSELoss),
        _loss(nn.MultiLabelMarginLoss),
        _loss(nn.MultiLabelSoftMarginLoss, weights=["weight"]),
        _loss(nn.MultiMarginLoss, always=["p", "margin"], weights=["weight"]),
        _loss(nn.NLLLoss, weights=["weight"]),
        _loss(nn.NLLLoss2d, weights=["weight"]),
        _loss(nn.PoissonNLLLoss),
        _loss(nn.SmoothL1Loss, always=["beta"]),
        _loss(nn.SoftMarginLoss),
        _loss(nn.TripletMarginLoss, always=["margin", "p"]),
        Layer(
            nn.TripletMarginWithDistanceLoss,
            always=["margin", "reduction"],
            readers={"distance_function": _read_distance},
            writers={"distance_function": _write_distance},
        ),
    ]
