"""A third party's handlers for ``nn.Linear``, there to be seen to be asked."""

from __future__ import annotations

from torch import nn

from layergraph import Implementation, hookimpl


class AcmeLinear(nn.Linear):
    """Computes what ``nn.Linear`` does, and is told apart by its class."""


@hookimpl
def torch_to_ir(module: nn.Module) -> Implementation | None:
    """Answer for what the built-in handler answers for, and sign it."""
    if type(module) is not nn.Linear:
        return None
    return Implementation(
        "linear",
        {
            "in_features": module.in_features,
            "out_features": module.out_features,
            "bias": module.bias is not None,
            "by": "acme",
        },
    )


@hookimpl
def ir_to_torch(implementation: Implementation) -> nn.Module | None:
    """Answer for the type of the built-in handler, signed or not."""
    if implementation.type != "linear":
        return None
    data = {key: value for key, value in implementation.data.items() if key != "by"}
    return AcmeLinear(**data)
