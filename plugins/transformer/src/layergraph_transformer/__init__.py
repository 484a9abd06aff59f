"""Handlers for the transformers of torch.nn, each whole: inside they choose fused kernels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu, relu

from layergraph import Implementation, hookimpl
from layergraph.errors import BuildError
from layergraph.layers import Layer, LayerTable, Reader

# Layer.to_ir compares what is in these.
_COMPARED_ELSEWHERE = frozenset({"_parameters", "_buffers", "_modules"})


class _Argument:
    """An argument that is a layer itself, which is said as a dict of its type and attributes.

    Args:
        name: the name of the argument.
        layers: the rows of the layers that it may be.
        others: what else it may be, by what is said then.
    """

    def __init__(self, name: str, layers: Sequence[Layer], others: Mapping[Any, object]) -> None:
        self._name = name
        self._table = LayerTable(layers)
        self._others = others
        kinds = [f"a dict of type {layer.kind!r}" for layer in layers]
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
            answer = self._table.to_ir(inner)
            # What is unknown is no plain value either, so that the table declines.
            return inner if answer is None else {"type": answer.type, **answer.data}

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


class _Nest(Layer):
    """The row of a class with layers inside, all of which its arguments decide."""

    def to_ir(self, module: nn.Module) -> Implementation | None:
        """The implementation; None if the module or a layer inside is not as its arguments say."""
        with warnings.catch_warnings():
            # Which arguments are slow, was said when the module was made.
            warnings.simplefilter("ignore")
            try:
                answer = super().to_ir(module)
            except AttributeError:  # something else is inside, of which nothing can be read
                return None
            if answer is None:
                return None
            with torch.device("meta"):
                made = self.to_torch(answer)
        return answer if _are_alike(module, made.train(module.training)) else None


def _are_alike(module: nn.Module, made: nn.Module) -> bool:
    """Whether all layers inside a module, their classes being known, are set as in a new one."""
    mine, fresh = dict(module.named_modules()), dict(made.named_modules())
    # Layers under several names are listed once.
    return mine.keys() == fresh.keys() and all(
        _is_as_made(mine[name], fresh[name]) for name in fresh
    )


def _is_as_made(module: nn.Module, made: nn.Module) -> bool:
    mine, fresh = vars(module), vars(made)
    hides = any(name not in fresh and hasattr(made, name) for name in mine)
    return not hides and all(
        name in _COMPARED_ELSEWHERE or (name in mine and _same(mine[name], value))
        for name, value in fresh.items()
    )


def _same(one: Any, other: Any) -> bool:
    return one is other or (not isinstance(one, torch.Tensor) and bool(one == other))


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


def _layer(row: type[Layer], cls: type[nn.Module]) -> Layer:
    return row(cls, readers=_readers(), writers={"activation": _ACTIVATION.make})


def _stack(cls: type[nn.Module], argument: str, layer: type[nn.Module]) -> Layer:
    inner = _Argument(argument, [_layer(Layer, layer)], {})
    return _Nest(
        cls,
        # That the other layers are as the first, is seen when all are compared.
        readers={argument: inner.at("layers.0"), "norm": _NORM.at("norm")},
        writers={argument: inner.make, "norm": _NORM.make},
    )


TABLE = LayerTable(
    [
        _layer(_Nest, nn.TransformerEncoderLayer),
        _layer(_Nest, nn.TransformerDecoderLayer),
        _stack(nn.TransformerEncoder, "encoder_layer", nn.TransformerEncoderLayer),
        _stack(nn.TransformerDecoder, "decoder_layer", nn.TransformerDecoderLayer),
        _Nest(
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
)


@hookimpl(trylast=True)
def torch_to_ir(module: nn.Module) -> Implementation | None:
    """Answer for the classes of the table."""
    return TABLE.to_ir(module)


@hookimpl(trylast=True)
def ir_to_torch(implementation: Implementation) -> nn.Module | None:
    """Answer for the types of the table."""
    return TABLE.to_torch(implementation)
