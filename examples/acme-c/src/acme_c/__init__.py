"""C source for small convolutional networks: the suffix ``.c`` and the handlers of its target.

This module imports the others on first use, because they import torch, and layergraph lists formats
without torch.
"""

from __future__ import annotations

from typing import Any

from layergraph import Format, Lowering, hookimpl

_RESHAPES = ("flatten", "reshape", "view")


def _write(ir: Any, path: Any, state_dict: Any = None, *, args: Any) -> None:
    from acme_c.source import write

    write(ir, path, state_dict, args=args)


@hookimpl
def formats() -> list[Format]:
    """List the format for ``.c`` files."""
    return [Format(".c", "C source with weights", write=_write)]


@hookimpl
def lowerings() -> list[Lowering]:
    """List the handlers for the layers of small convolutional networks."""
    from acme_c import handlers

    relu = ["torch.relu", "torch.Tensor.relu", "torch.nn.functional.relu"]
    reshapes = ["torch.flatten", *(f"torch.Tensor.{name}" for name in _RESHAPES)]
    return [
        Lowering("c", handlers.conv2d, layers=["conv2d"]),
        Lowering("c", handlers.linear, layers=["linear"]),
        Lowering("c", handlers.batchnorm2d, layers=["batchnorm2d"]),
        Lowering("c", handlers.maxpool2d, layers=["maxpool2d"]),
        Lowering("c", handlers.global_average, layers=["adaptiveavgpool2d"]),
        Lowering("c", handlers.relu, layers=["relu"], functions=relu),
        Lowering("c", handlers.add, functions=["torch.add", "torch.Tensor.add", "operator.add"]),
        Lowering("c", handlers.same, layers=["flatten", "dropout", "identity"], functions=reshapes),
    ]
