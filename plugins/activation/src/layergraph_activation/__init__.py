"""Handlers for the activations of torch.nn, including attention."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from layergraph import hookimpl
from layergraph.layers import Layer

_CLASSES = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.GLU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.LogSoftmax,
    nn.Mish,
    nn.PReLU,
    nn.RReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softmax,
    nn.Softmax2d,
    nn.Softmin,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
)


def _size(name: str) -> Callable[[nn.Module], int | None]:
    """Return a reader of a size, which returns None if the size equals that of the embedding."""

    def read(module: nn.Module) -> int | None:
        size: int = getattr(module, name)
        return None if size == module.embed_dim else size

    return read


@hookimpl(trylast=True)
def layers() -> list[Layer]:
    """List the classes, each with its constructor arguments."""
    return [
        *(Layer(cls) for cls in _CLASSES),
        # min_value and max_value are deprecated names of min_val and max_val.
        Layer(nn.Hardtanh, always=["min_val", "max_val"], never=["min_value", "max_value"]),
        Layer(
            nn.MultiheadAttention,
            always=["dropout", "bias", "batch_first"],
            readers={
                "bias": lambda module: module.in_proj_bias is not None,
                "add_bias_kv": lambda module: module.bias_k is not None,
                "kdim": _size("kdim"),
                "vdim": _size("vdim"),
            },
        ),
    ]
