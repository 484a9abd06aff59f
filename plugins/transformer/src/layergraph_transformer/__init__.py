"""Handlers for the transformers of torch.nn. They are leaves, because they choose fused kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from torch import nn
from torch.nn.functional import gelu, relu

from layergraph import Implementation, hookimpl
from layergraph.errors import BuildError
from layergraph.layers import Layer, LayerTable, Reader


class _Argument:
    """A constructor argument that is a layer. Its attribute is a dict of type and attributes.

    Args:
        name: the name of the argument.
        layers: the rows of the possible layers.
        others: other possible values, by the value of the attribute.
    """

    def __init__(self, name: str, layers: Sequence[Layer], others: Mapping[Any, object]) -> None:
        self._name = name
        self._layers = {layer.cls: layer for layer in layers}
        self._table = LayerTable(layers)
        self._others = others
        kinds = [f"a dict of type {layer.type!r}" for layer in layers]
        self._known = " or ".join([*kinds, *map(repr, others)])

    def at(self, path: str) -> Reader:
        """Return a reader of the argument, for a module that holds it at a path."""
        way, _, name = path.rpartition(".")

        def read(module: nn.Module) -> Any:
            owner = attrgetter(way)(module) if way else module
            # A copied decoder layer of torch has `activation` set to relu, and the original
            # argument as a child.
            inner = owner._modules.get(name) or getattr(owner, name)
            for plain, other in self._others.items():
                if inner is other:
                    return plain
            layer = self._layers.get(type(inner))
            # read(), not to_ir(): the row compares the whole module with a new one later.
            data = None if layer is None else layer.read(inner)
            # The row declines an unknown layer, because it is not a plain value.
            return inner if layer is None or data is None else {"type": layer.type, **data}

        return read

    def make(self, plain: Any) -> object:
        """Return the constructor argument for the value of the attribute.

        Raises:
            ValueError: the argument cannot have this value.
        """
        if isinstance(plain, dict):
            data = {key: value for key, value in plain.items() if key != "type"}
            kind = str(plain.get("type"))
            try:
                made = self._table.to_torch(Implementation(kind, data, name=self._name))
            except BuildError as error:  # the caller adds the name of the implementation
                raise ValueError(str(error)) from error
            if made is not None:
                return made
        elif plain in list(self._others):
            return self._others[plain]
        raise ValueError(f"its {self._name} is {plain!r}, but has to be {self._known}")


_ACTIVATION = _Argument(
    "activation", [Layer(nn.ReLU), Layer(nn.GELU)], {"relu": relu, "gelu": gelu}
)
_NORM = _Argument("norm", [Layer(nn.LayerNorm), Layer(nn.RMSNorm)], {None: None})


def _readers(layer: str = "") -> dict[str, Reader]:
    """Return readers of the arguments of an encoder or decoder layer at a path."""

    def has_bias(module: nn.Module) -> bool:
        return attrgetter(f"{layer}linear1.bias")(module) is not None

    return {
        "d_model": attrgetter(f"{layer}self_attn.embed_dim"),
        "nhead": attrgetter(f"{layer}self_attn.num_heads"),
        "dim_feedforward": attrgetter(f"{layer}linear1.out_features"),
        "dropout": attrgetter(f"{layer}dropout.p"),
        "activation": _ACTIVATION.at(f"{layer}activation"),
        "layer_norm_eps": attrgetter(f"{layer}norm1.eps"),
        "batch_first": attrgetter(f"{layer}self_attn.batch_first"),
        "norm_first": attrgetter(f"{layer}norm_first"),
        "bias": has_bias,
    }


def _layer(cls: type[nn.Module]) -> Layer:
    return Layer(cls, readers=_readers(), writers={"activation": _ACTIVATION.make})


def _stack(cls: type[nn.Module], argument: str, layer: Layer) -> Layer:
    inner = _Argument(argument, [layer], {})
    return Layer(
        cls,
        # Read the first layer only: the row compares all of them with new ones later.
        readers={argument: inner.at("layers.0"), "norm": _NORM.at("norm")},
        writers={argument: inner.make, "norm": _NORM.make},
    )


_ENCODER_LAYER = _layer(nn.TransformerEncoderLayer)
_DECODER_LAYER = _layer(nn.TransformerDecoderLayer)


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes, each with its constructor arguments."""
    return [
        _ENCODER_LAYER,
        _DECODER_LAYER,
        _stack(nn.TransformerEncoder, "encoder_layer", _ENCODER_LAYER),
        _stack(nn.TransformerDecoder, "decoder_layer", _DECODER_LAYER),
        Layer(
            nn.Transformer,
            never=["custom_encoder", "custom_decoder"],
            readers={
                **_readers("encoder.layers.0."),
                "num_encoder_layers": attrgetter("encoder.num_layers"),
                "num_decoder_layers": attrgetter("decoder.num_layers"),
            },
            writers={"activation": _ACTIVATION.make},
        ),
    ]
