"""Handlers for the activations of torch.nn, attention among them."""

from __future__ import annotations

from torch import nn

from layergraph import Implementation, hookimpl
from layergraph.layers import Layer, LayerTable

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


def _own_size(size: int, embed_dim: int) -> int | None:
    """What the argument was: without one the size is that of the embedding."""
    return None if size == embed_dim else size


TABLE = LayerTable(
    [
        *(Layer(cls) for cls in _CLASSES),
        # The other two are old names of the first two.
        Layer(nn.Hardtanh, always=["min_val", "max_val"], never=["min_value", "max_value"]),
        Layer(
            nn.MultiheadAttention,
            always=["dropout", "bias", "batch_first"],
            readers={
                "bias": lambda module: module.in_proj_bias is not None,
                "add_bias_kv": lambda module: module.bias_k is not None,
                "kdim": lambda module: _own_size(module.kdim, module.embed_dim),
                "vdim": lambda module: _own_size(module.vdim, module.embed_dim),
            },
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
