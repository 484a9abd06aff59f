"""Folding of batch norm into the layer before or after it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from layergraph_passes.modes import first_argument, is_only_read_by, nodes_of, source_of
from layergraph_rewrite import VALUE, EditError, bound_layers, function

if TYPE_CHECKING:
    import torch

    from layergraph_rewrite import Call, Edit
    from layergraph_rewrite.sources import Tensors

# The batch norms that normalise the channels of each layer.
_NORMS = {
    "conv1d": "batchnorm1d",
    "conv2d": "batchnorm2d",
    "conv3d": "batchnorm3d",
    "convtranspose1d": "batchnorm1d",
    "convtranspose2d": "batchnorm2d",
    "convtranspose3d": "batchnorm3d",
    "linear": "batchnorm1d",
}

# For a 3-D input, batch norm normalises dimension 1, while linear works on the last one.
_VECTORS = 2


def fold_batchnorm(edit: Edit) -> None:
    """Fold batch norm into the convolution, transposed convolution or linear layer beside it.

    It folds a batch norm in evaluation mode into the layer before it, or, if there is none, into
    the layer after it. The weights are computed in float64 when they are read, and cast to the
    dtype of the layer. A batch norm beside a linear layer needs a 2-D input: the report states
    this, and a guard in the graph refuses any other input. With shape annotations there is no
    guard, and a batch norm stays if they contradict. In training mode the new model computes other
    values.

    A batch norm stays, with the reason in the report, if no such layer stands beside it, it is in
    training mode, has no statistics, or if other nodes use the batch norm, the layer, its value or
    its tensors.
    """
    bound = bound_layers(edit)
    for norm in list(edit.select(type="batchnorm?d")):
        reason = _fold(edit, norm, bound)
        if reason:
            edit.report.refuse(norm, reason)


def _fold(edit: Edit, norm: Call, bound: dict[str, str]) -> str:
    """Fold one batch norm; return the reason if it stays, else an empty text."""
    before = source_of(norm)
    if before is not None and _NORMS.get(before.type) == norm.type:
        reason = _problem(edit, norm, before, bound) or _after_problem(norm, before)
        if not reason:
            _apply(edit, norm, before, after_weights(before, norm))
        return reason
    users = norm.users
    after = users[0] if len(users) == 1 else None
    if after is None or _NORMS.get(after.type) != norm.type:
        return "no convolution or linear layer of its graph stands beside it"
    reason = _problem(edit, norm, after, bound) or _before_problem(edit, norm, after)
    if not reason:
        _apply(edit, norm, after, before_weights(after, norm))
    return reason


def _apply(
    edit: Edit, norm: Call, layer: Call, tensors: dict[str, Callable[[], torch.Tensor]]
) -> None:
    assert layer.layer is not None  # noqa: S101 for type checkers
    given = tensors if edit.has_state else None
    edit.set(layer.layer, tensors=given, bias=True)
    assumed = ", for inputs of two dimensions" if layer.type == "linear" else ""
    edit.report.add(norm, f"folded into {layer.layer!r}{assumed}")
    edit.remove(norm)
    if layer.type == "linear" and layer.shape is None:
        _guard_rank(edit, layer)


def _guard_rank(edit: Edit, layer: Call) -> None:
    """Insert a guard that refuses an input of a linear layer with more than two dimensions."""
    owner, name = layer.spot
    value = first_argument(owner.nodes[name])
    term = function("layergraph.assume_tensor")(VALUE, f"input of {layer.layer}", _VECTORS)
    edit.replace_uses(edit.insert_before(layer, term), value)


def _problem(edit: Edit, norm: Call, layer: Call, bound: dict[str, str]) -> str:
    """Return a reason against folding in both directions; empty if there is none."""
    assert norm.layer is not None  # noqa: S101 for type checkers
    assert layer.layer is not None  # noqa: S101 for type checkers
    if norm.training:
        return "it is in training mode; capture the model in eval mode"
    if not norm.attributes.get("track_running_stats", True):
        return "it keeps no statistics"
    for call in (norm, layer):
        calls = edit.calls(call.layer or "")
        if len(calls) > 1:
            return f"{len(calls)} nodes call {call.layer!r}"
        if any(spec.packed for spec in edit.layers[call.layer or ""].tensors.values()):
            return f"a tensor of {call.layer!r} is quantized, or sparse"
        if call.layer in bound:
            return f"the tensors of {call.layer!r} are used elsewhere: {bound[call.layer]}"
    if {repr(node.when) for node in nodes_of(norm)} != {
        repr(node.when) for node in nodes_of(layer)
    }:
        return f"it and {layer.layer!r} run under different conditions"
    return ""


def _after_problem(norm: Call, layer: Call) -> str:
    if not is_only_read_by(layer, norm):
        return f"other nodes read the value of {layer.layer!r}"
    if layer.type == "linear" and layer.shape is not None and len(layer.shape) != _VECTORS:
        return f"{layer.layer!r} gives values of {len(layer.shape)} dimensions"
    channels = layer.attributes.get("out_channels", layer.attributes.get("out_features"))
    return _size_problem(norm, channels)


def _before_problem(edit: Edit, norm: Call, layer: Call) -> str:
    if not is_only_read_by(norm, layer):
        return "other nodes read its value"
    if source_of(layer) != norm:
        return f"{layer.layer!r} reads it as another argument"
    if layer.type.startswith("convtranspose"):
        return f"its shift reaches the border of {layer.layer!r}, a {layer.type}, less often"
    pads = layer.attributes.get("padding", 0)
    is_zero = layer.attributes.get("padding_mode", "zeros") == "zeros"
    if is_zero and pads != "valid" and pads != 0 and pads != (0,) * len(_sizes(pads)):
        return f"{layer.layer!r} pads the normalised values with zeros"
    channels = layer.attributes.get("in_channels", layer.attributes.get("in_features"))
    reason = _size_problem(norm, channels)
    if not reason:
        try:  # the layer will read the input of the batch norm, so no node in between may change it
            edit.move(norm, before=layer)
        except EditError as error:
            reason = str(error)
    return reason


def _sizes(pads: object) -> tuple[object, ...]:
    return tuple(pads) if isinstance(pads, tuple | list) else (pads,)


def _size_problem(norm: Call, channels: object) -> str:
    features = norm.attributes.get("num_features")
    return "" if features == channels else f"it normalises {features} channels of {channels}"


def after_weights(layer: Call, norm: Call) -> dict[str, Callable[[], torch.Tensor]]:
    """Return the tensors of a layer with the batch norm after it folded in."""
    old, scale_and_shift = layer.tensors, _scale_and_shift(norm)
    groups = int(layer.attributes.get("groups", 1))
    is_transposed = layer.type.startswith("convtranspose")

    def weight() -> torch.Tensor:
        scale, _ = scale_and_shift()
        wide = old["weight"].double()
        if not is_transposed:
            new = wide * scale.view(-1, *[1] * (wide.dim() - 1))
        else:  # (in, out / groups, …): the channels of a group of inputs are one block of scales
            grouped = wide.view(groups, wide.shape[0] // groups, *wide.shape[1:])
            new = grouped * scale.view(groups, 1, -1, *[1] * (wide.dim() - 2))
            new = new.view(wide.shape)
        return new.to(old["weight"].dtype)

    def bias() -> torch.Tensor:
        scale, shift = scale_and_shift()
        given = old["bias"].double() if "bias" in old else 0
        return (given * scale + shift).to(old["weight"].dtype)

    return {"weight": weight, "bias": bias}


def before_weights(layer: Call, norm: Call) -> dict[str, Callable[[], torch.Tensor]]:
    """Return the tensors of a layer with the batch norm before it folded in."""
    old, scale_and_shift = layer.tensors, _scale_and_shift(norm)
    groups = int(layer.attributes.get("groups", 1))

    def spread(values: torch.Tensor) -> torch.Tensor:
        """Return the value of each input channel in the shape (groups, 1, in / groups, 1…)."""
        return values.view(groups, 1, -1, *[1] * (old["weight"].dim() - 2))

    def grouped() -> torch.Tensor:
        wide = old["weight"].double()
        return wide.view(groups, wide.shape[0] // groups, *wide.shape[1:])

    def weight() -> torch.Tensor:
        scale, _ = scale_and_shift()
        new = (grouped() * spread(scale)).view(old["weight"].shape)
        return new.to(old["weight"].dtype)

    def bias() -> torch.Tensor:
        _, shift = scale_and_shift()
        added = (grouped() * spread(shift)).flatten(2).sum(2).flatten()
        given = old["bias"].double() if "bias" in old else 0
        return (given + added).to(old["weight"].dtype)

    return {"weight": weight, "bias": bias}


def _scale_and_shift(norm: Call) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Return a function that computes the scale and shift of a batch norm in float64."""
    tensors: Tensors = norm.tensors
    epsilon = float(norm.attributes.get("eps", 1e-5))

    def compute() -> tuple[torch.Tensor, torch.Tensor]:
        scale = (tensors["running_var"].double() + epsilon).rsqrt()
        if "weight" in tensors:
            scale = scale * tensors["weight"].double()
        shift = -tensors["running_mean"].double() * scale
        if "bias" in tensors:
            shift = shift + tensors["bias"].double()
        return scale, shift

    return functools.cache(compute)
