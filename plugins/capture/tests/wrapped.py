"""Layers of torch whose weights wrap other tensors, captured by running. A fault ends the process.

``test_wrapped.py`` runs this file, and looks at the exit code.
"""

from __future__ import annotations

import types
from typing import Any, Self

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from layergraph import TensorKind, hookimpl
from layergraph.ir2torch import Ir2Torch
from layergraph.plugins import Plugin, installed_plugins
from layergraph.testing import bitwise_equal
from layergraph.torch2ir import Torch2Ir


class Halves(torch.Tensor):
    """A weight as the number of halves in it. It has no memory of its own."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, count: torch.Tensor) -> Self:
        made: Any = torch.Tensor._make_wrapper_subclass(cls, count.shape, dtype=torch.float32)
        made.count = count
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        if func in (aten.detach.default, aten.clone.default):
            return cls(args[0].count)
        args, kwargs = tree_map_only(Halves, lambda each: each.count / 2, (args, kwargs or {}))
        return func(*args, **kwargs)


ROW = TensorKind(
    "acme.Halves",
    lambda tensor: ({"count": tensor.count}, {}) if type(tensor) is Halves else None,
    lambda parts, _: Halves(parts["count"]),
)
ROWS = types.SimpleNamespace(tensor_kinds=hookimpl(lambda: [ROW]))
PLUGINS = (*installed_plugins(), Plugin("acme-halves", "1.0", "halves", ROWS))


class Around(nn.Module):
    """A layer, and a function behind it: so it is captured by running."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        result = self.layer(*args)
        return torch.relu(result[0] if isinstance(result, tuple) else result)


def cases() -> dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]]:
    """Return layers, each with arguments."""
    rows, image, indices = torch.randn(2, 3, 8), torch.randn(1, 3, 8, 8), torch.arange(6).view(2, 3)
    return {
        "linear": (nn.Linear(8, 8), (rows,)),
        "conv": (nn.Conv2d(3, 4, 3), (image,)),
        "transposed": (nn.ConvTranspose2d(3, 4, 3), (image,)),
        "embedding": (nn.Embedding(8, 8), (indices,)),
        "embedding with a norm": (nn.Embedding(8, 8, max_norm=1.0), (indices,)),
        "bag": (nn.EmbeddingBag(8, 8), (indices,)),
        "bilinear": (nn.Bilinear(8, 8, 2), (rows, rows)),
        "layer norm": (nn.LayerNorm(8), (rows,)),
        "batch norm": (nn.BatchNorm2d(3), (image,)),
        "prelu": (nn.PReLU(), (rows,)),
        "recurrent": (nn.LSTM(8, 8), (rows,)),
        "cell": (nn.GRUCell(8, 8), (rows[0],)),
        "attention": (nn.MultiheadAttention(8, 2), (rows, rows, rows)),
        "transformer": (nn.TransformerEncoderLayer(8, 2, 16), (rows,)),
        "deep": (nn.Sequential(nn.Sequential(nn.Linear(8, 8))), (rows,)),
    }


def main() -> None:
    """Capture each, and compare what comes back."""
    for name, (layer, args) in cases().items():
        model = Around(layer).eval()
        for module in model.modules():
            for key, weight in module._parameters.items():
                if weight is not None:
                    halves = Halves((weight.detach() * 64).round())
                    setattr(module, key, nn.Parameter(halves, requires_grad=False))
        wanted = model(*args)
        ir = Torch2Ir(plugins=PLUGINS).convert(model, args)
        again = Ir2Torch(plugins=PLUGINS).convert(ir, model.state_dict())
        assert all(type(each) is Halves for each in again.parameters()), name
        assert bitwise_equal(again(*args), wanted), name
        print(name)


if __name__ == "__main__":
    main()
