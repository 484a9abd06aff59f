"""Stacks of transformer layers, opened together with the layers in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from layergraph_passes.opened import NotOpenedError, Opened, only, stated, with_inputs
from layergraph_passes.opened_attention import decoder_layer, encoder_layer

Attributes = Mapping[str, Any]


class Stack(Opened):
    """``nn.TransformerEncoder`` or ``nn.TransformerDecoder``.

    Args:
        layers: the layers, opened. They take the inputs of the stack, in its order.
        norm: the norm at the end; None: there is none.
        kinds: the tensor arguments; the kind of a mask is ``"bool"`` or ``"float"``.
    """

    def __init__(
        self, layers: list[Opened], norm: nn.Module | None, kinds: Mapping[str, str]
    ) -> None:
        super().__init__(tuple(kinds))
        self.layers = nn.ModuleList(layers)
        for index, each in enumerate(layers):
            self.note_origins(f"layers.{index}", each)
        self.norm = norm

    def compute(self, **tensors: Any) -> Any:
        """Return the output."""
        x, *others = (tensors[name] for name in self.inputs)
        for layer in self.layers:
            x = layer(x, *others)
        return x if self.norm is None else self.norm(x)


def _norm(plain: Any) -> nn.Module | None:
    if plain is None:
        return None
    attributes = dict(plain)
    if attributes.pop("type") != "layernorm":
        raise NotOpenedError(f"its norm is a {plain['type']}")
    return nn.LayerNorm(**attributes)


def _stack(
    what: str,
    open_layer: Callable[..., Opened],
    names: Mapping[str, str],
    attributes: Attributes,
    kinds: Mapping[str, str],
    constants: Mapping[str, Any],
) -> Opened:
    """Make the model of a stack.

    Args:
        what: the attribute that is the layer: ``"encoder_layer"``, for example.
        open_layer: opens such a layer.
        names: the layer's names for inputs of the stack, if different.
        attributes: the attributes of the stack.
        kinds: the tensor arguments.
        constants: the other arguments.
    """
    only(constants)
    layer = dict(attributes[what])
    kind = layer.pop("type")
    if kind != f"transformer{what.replace('_', '')}":
        raise NotOpenedError(f"its layers are of the type {kind}")
    if "src_key_padding_mask" in kinds and what == "encoder_layer":
        _check_nested(attributes, layer)
    inner = {names.get(name, name): each for name, each in kinds.items()}
    layers = [open_layer(layer, inner, {}) for _ in range(attributes["num_layers"])]
    made: Opened = with_inputs(Stack, tuple(kinds))(layers, _norm(attributes.get("norm")), kinds)
    return made


def _check_nested(attributes: Attributes, layer: Attributes) -> None:
    """Refuse nested tensors, with which torch sets masked outputs to 0 in evaluation mode."""
    if attributes.get("enable_nested_tensor", True) and layer.get("batch_first", False):
        raise NotOpenedError(
            "with a padding mask, it gives 0 where the mask is; make it with "
            "enable_nested_tensor=False"
        )


encoder: Callable[..., Opened] = partial(
    _stack, "encoder_layer", encoder_layer, {"mask": "src_mask"}
)
decoder: Callable[..., Opened] = partial(_stack, "decoder_layer", decoder_layer, {})

_OF_LAYERS = (
    "d_model nhead dim_feedforward dropout activation layer_norm_eps batch_first norm_first bias"
).split()


class Transformer(Opened):
    """``nn.Transformer``.

    Args:
        attributes: those of the layer, with all defaults.
        kinds: the tensor arguments; the kind of a mask is ``"bool"`` or ``"float"``.
    """

    def __init__(self, attributes: Attributes, kinds: Mapping[str, str]) -> None:
        super().__init__(tuple(kinds))
        if attributes["custom_encoder"] or attributes["custom_decoder"]:
            raise NotOpenedError("its encoder or decoder is of another kind")
        layer = {name: attributes[name] for name in _OF_LAYERS}
        norm = {
            "type": "layernorm",
            "normalized_shape": layer["d_model"],
            "eps": layer["layer_norm_eps"],
            "bias": layer["bias"],
        }
        self.parts: dict[str, dict[str, str]] = {
            "encoder": {"src": "src"}, "decoder": {"tgt": "tgt", "memory": "memory"}
        }  # fmt: skip
        named = {"encoder": {"src_mask": "mask"}, "decoder": {}}
        for name in kinds:
            if "mask" in name:
                part = "encoder" if name.startswith("src") else "decoder"
                self.parts[part][named[part].get(name, name)] = name
        for part, make in (("encoder", encoder), ("decoder", decoder)):
            inner = {name: kinds.get(given, "float") for name, given in self.parts[part].items()}
            stack = {
                f"{part}_layer": {"type": f"transformer{part}layer", **layer},
                "num_layers": attributes[f"num_{part}_layers"],
                "norm": norm,
            }
            made = make(stack, inner, {})
            self.add_module(part, made)
            self.note_origins(part, made)

    def compute(self, **tensors: Any) -> Any:
        """Return the output of the decoder."""
        for part in ("encoder", "decoder"):
            given = [tensors[name] for name in self.parts[part].values()]
            tensors["memory"] = self.get_submodule(part)(*given)
        return tensors["memory"]


def transformer(
    attributes: Attributes, kinds: Mapping[str, str], constants: Mapping[str, Any]
) -> Opened:
    """Make the model of a ``nn.Transformer``."""
    only(constants)
    cls = with_inputs(Transformer, tuple(kinds))
    made: Opened = cls(stated(nn.Transformer, attributes), kinds)
    return made
