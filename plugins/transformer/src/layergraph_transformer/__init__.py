"""Handlers for the transformers of torch.nn, each whole: inside they choose fused kernels."""

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
    """An argument that is a layer itself, which is said as a dict of its type and attributes.

    Args:
        name: the name of the argument.
        layers: the rows of the layers that it may be.
        others: what else it may be, by what is said then.
    """

    def __init__(self, name: str, layers: Sequence[Layer], others: Mapping[Any, object]) -> None:
        self._name = name
        self._layers = {layer.cls: layer for layer in layers}
        self._table = LayerTable(layers)
        self._others = others
        kinds = [f"a dict of type {layer.type!r}" for layer in layers]
        self._known = " or ".join([*kinds, *map(repr, others)])

    def at(self, path: str) -> Reader:
        """How to read the argument off a module that holds it at a path."""
        way, _, name = path.rpartition(".")

        def read(module: nn.Module) -> Any:
            owner = attrgetter(way)(module) if way else module
            # Torch's copies of a decoder's layer run relu, but they were made with what they hold.
            inner = owner._modules.get(name) or getattr(owner, name)
            for said, other in self._others.items():
                if inner is other:
                    return said
            layer = self._layers.get(type(inner))
            # Whether it is as made, is seen when all of the module is compared with a new one.
            data = None if layer is None else layer.read(inner)
            # What is unknown is no plain value either, so that the table declines.
            return inner if layer is None or data is None else {"type": layer.type, **data}

        return read

    def make(self, said: Any) -> object:
        """What the constructor takes.

        Raises:
            ValueError: it is nothing that the argument may be.
        """
        if isinstance(said, dict):
            data = {key: value for key, value in said.items() if key != "type"}
            kind = str(said.get("type"))
            try:
                made = self._table.to_torch(Implementation(kind, data, name=self._name))
            except BuildError as error:  # whoever builds knows in which implementation it was
                raise ValueError(str(error)) from error
            if made is not None:
                return made
        elif said in list(self._others):
            return self._others[said]
        raise ValueError(f"its {self._name} is {said!r}, but has to be {self._known}")


_ACTIVATION = _Argument(
    "activation", [Layer(nn.ReLU), Layer(nn.GELU)], {"relu": relu, "gelu": gelu}
)
_NORM = _Argument("norm", [Layer(nn.LayerNorm), Layer(nn.RMSNorm)], {None: None})


def _readers(layer: str = "") -> dict[str, Reader]:
    """How to read the arguments of an encoder's or decoder's layer, given the path to it."""

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
        # That the other layers are as the first, is seen when all are compared.
        readers={argument: inner.at("layers.0"), "norm": _NORM.at("norm")},
        writers={argument: inner.make, "norm": _NORM.make},
    )


_ENCODER_LAYER = _layer(nn.TransformerEncoderLayer)
_DECODER_LAYER = _layer(nn.TransformerDecoderLayer)


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes of torch.nn, each with what it says of itself."""
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
