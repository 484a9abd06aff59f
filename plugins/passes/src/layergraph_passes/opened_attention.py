"""Attention and transformer layers from linear layers, softmax and matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from layergraph_passes.opened import NotOpenedError, Opened, masked, only, stated, with_inputs

PADDING = "key_padding_mask"


class Attention(Opened):
    """``nn.MultiheadAttention`` for inputs with a batch.

    Args:
        attributes: those of the layer, with all defaults.
        kinds: the tensor arguments; the kind of a mask is ``"bool"`` or ``"float"``.
        weights: the form of the returned weights: ``"mean"``, ``"each"``, ``"none"``, or ``"left
            out"`` if only the output is returned.
    """

    def __init__(
        self, attributes: Mapping[str, Any], kinds: Mapping[str, str], weights: str
    ) -> None:
        super().__init__(tuple(kinds))
        if attributes["add_bias_kv"] or attributes["add_zero_attn"]:
            raise NotOpenedError("it adds keys of its own (add_bias_kv, add_zero_attn)")
        size, bias = attributes["embed_dim"], attributes["bias"]
        widths = {
            "q": size,
            "k": attributes["kdim"] or size,
            "v": attributes["vdim"] or size,
        }
        is_packed = widths["k"] == size == widths["v"]
        for index, (name, width) in enumerate(widths.items()):
            rows = slice(index * size, (index + 1) * size)
            self.add_module(f"{name}_proj", nn.Linear(width, size, bias))
            self.origins[f"{name}_proj.weight"] = (
                ("in_proj_weight", rows) if is_packed else (f"{name}_proj_weight", None)
            )
            self.origins[f"{name}_proj.bias"] = "in_proj_bias", rows
        self.out_proj = nn.Linear(size, size, bias)
        self.softmax = nn.Softmax(dim=-1)
        self.dropout = nn.Dropout(attributes["dropout"]) if attributes["dropout"] else None
        self.heads, self.is_batch_first = attributes["num_heads"], attributes["batch_first"]
        self.scale = math.sqrt(1 / (size // self.heads))
        self.kinds, self.weights = kinds, weights

    def compute(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        **masks: torch.Tensor,
    ) -> Any:
        """Return the output, and the weights if the calls request them."""
        q = self._split(self.get_submodule("q_proj")(query)) * self.scale
        k = self._split(self.get_submodule("k_proj")(key))
        v = self._split(self.get_submodule("v_proj")(value))
        scores = torch.matmul(q, k.transpose(-2, -1))
        if "attn_mask" in masks:
            scores = masked(scores, masks["attn_mask"], self.kinds["attn_mask"])
        if PADDING in masks:
            padding = masks[PADDING].unsqueeze(1).unsqueeze(1)
            scores = masked(scores, padding, self.kinds[PADDING])
        weights = self.softmax(scores)
        if masks and self.weights in ("none", "left out"):
            # For a fully masked row, torch returns 0, or NaN if it also returns the weights.
            is_empty = (scores == float("-inf")).all(-1, keepdim=True)
            weights = weights.masked_fill(is_empty, 0.0)
        if self.dropout is not None:
            weights = self.dropout(weights)
        order = (0, 2, 1, 3) if self.is_batch_first else (2, 0, 1, 3)
        output = self.out_proj(torch.matmul(weights, v).permute(*order).flatten(-2))
        if self.weights == "left out":
            return output
        if self.weights == "none":
            return output, None
        return output, weights.mean(dim=1) if self.weights == "mean" else weights

    def _split(self, x: Any) -> Any:
        """Return the heads in the order batch, head, position, number. Refuses other ranks."""
        order = (0, 2, 1, 3) if self.is_batch_first else (1, 2, 0, 3)
        return x.unflatten(-1, (self.heads, -1)).permute(*order)


def attention(
    attributes: Mapping[str, Any], kinds: Mapping[str, str], constants: Mapping[str, Any]
) -> Opened:
    """Make the model of a ``nn.MultiheadAttention``."""
    only(constants, "need_weights", "average_attn_weights")
    weights = "mean" if constants["average_attn_weights"] else "each"
    weights = weights if constants["need_weights"] else "none"
    cls = with_inputs(Attention, tuple(kinds))
    made: Opened = cls(stated(nn.MultiheadAttention, attributes), kinds, weights)
    return made


def _attention_of(layer: Mapping[str, Any], masks: Mapping[str, str | None]) -> Opened:
    """Return the attention of a transformer layer, with some masks by their kinds."""
    given = {name: kind for name, kind in masks.items() if kind is not None}
    kinds = {"query": "float", "key": "float", "value": "float", **given}
    attributes = {
        "embed_dim": layer["d_model"],
        "num_heads": layer["nhead"],
        "dropout": layer["dropout"],
        "bias": layer["bias"],
        "batch_first": layer["batch_first"],
    }
    cls = with_inputs(Attention, tuple(kinds))
    made: Opened = cls(stated(nn.MultiheadAttention, attributes), kinds, "left out")
    return made


class TransformerLayer(Opened):
    """``nn.TransformerEncoderLayer`` or ``nn.TransformerDecoderLayer``.

    Args:
        layer: the attributes, with all defaults.
        kinds: the tensor arguments; the kind of a mask is ``"bool"`` or ``"float"``.
        attentions: the names of the attentions, each with the names of its masks.
    """

    def __init__(
        self,
        layer: Mapping[str, Any],
        kinds: Mapping[str, str],
        attentions: Mapping[str, tuple[str, str]],
    ) -> None:
        super().__init__(tuple(kinds))
        size, bias = layer["d_model"], layer["bias"]
        self.masks: dict[str, list[str]] = {}
        for name, (mask, padding) in attentions.items():
            given = {"attn_mask": kinds.get(mask), PADDING: kinds.get(padding)}
            made = _attention_of(layer, given)
            self.add_module(name, made)
            self.note_origins(name, made)
            self.masks[name] = [each for each in (mask, padding) if each in kinds]
        self.linear1 = nn.Linear(size, layer["dim_feedforward"], bias)
        self.activation = _activation(layer["activation"])
        self.linear2 = nn.Linear(layer["dim_feedforward"], size, bias)
        for number in range(1, len(attentions) + 2):
            norm = nn.LayerNorm(size, layer["layer_norm_eps"], bias=bias)
            self.add_module(f"norm{number}", norm)
            if layer["dropout"]:
                self.add_module(f"dropout{number}", nn.Dropout(layer["dropout"]))
        if layer["dropout"]:
            self.dropout = nn.Dropout(layer["dropout"])
        self.is_norm_first = layer["norm_first"]

    def compute(self, **tensors: torch.Tensor) -> Any:
        """Return the output."""
        x, *memory = (tensors[name] for name in self.inputs if "mask" not in name)
        for number, name in enumerate(self.masks, 1):
            given = [tensors[each] for each in self.masks[name]]
            x = self._step(x, number, lambda y: self._attend(name, y, memory, given))  # noqa: B023
        return self._step(x, len(self.masks) + 1, self._feed_forward)

    def _step(self, x: Any, number: int, part: Any) -> Any:
        norm = self.get_submodule(f"norm{number}")
        y = part(norm(x) if self.is_norm_first else x)
        if f"dropout{number}" in self._modules:
            y = self.get_submodule(f"dropout{number}")(y)
        return x + y if self.is_norm_first else norm(x + y)

    def _attend(self, name: str, x: Any, memory: list[Any], masks: list[Any]) -> Any:
        keys = memory[0] if name == "multihead_attn" else x
        return self.get_submodule(name)(x, keys, keys, *masks)

    def _feed_forward(self, x: torch.Tensor) -> Any:
        y = self.activation(self.linear1(x))
        return self.linear2(self.dropout(y) if "dropout" in self._modules else y)


def _activation(plain: Any) -> nn.Module:
    kind = plain["type"] if isinstance(plain, dict) else plain
    if kind == "relu":
        return nn.ReLU()
    approximate = plain.get("approximate", "none") if isinstance(plain, dict) else "none"
    return nn.GELU(approximate)


_SELF = {"self_attn": ("src_mask", "src_key_padding_mask")}
_BOTH = {
    "self_attn": ("tgt_mask", "tgt_key_padding_mask"),
    "multihead_attn": ("memory_mask", "memory_key_padding_mask"),
}


def _transformer_layer(
    cls: type[nn.Module],
    masks: Mapping[str, tuple[str, ...]],
    attributes: Mapping[str, Any],
    kinds: Mapping[str, str],
    constants: Mapping[str, Any],
) -> Opened:
    only(constants)
    layer = stated(cls, attributes)
    made: Opened = with_inputs(TransformerLayer, tuple(kinds))(layer, kinds, masks)
    return made


encoder_layer: Callable[..., Opened] = partial(
    _transformer_layer, nn.TransformerEncoderLayer, _SELF
)
decoder_layer: Callable[..., Opened] = partial(
    _transformer_layer, nn.TransformerDecoderLayer, _BOTH
)
