"""C source for small convolutional networks: the suffix ``.c`` and the handlers of its target."""

from __future__ import annotations

from acme_c import handlers
from acme_c.source import write
from layergraph import Format, Lowering, hookimpl

_RESHAPES = ("flatten", "reshape", "view")


@hookimpl
def formats() -> list[Format]:
    """Write ``.c`` files."""
    return [Format(".c", "C source with weights", write=write)]


@hookimpl
def lowerings() -> list[Lowering]:
    """Handle the layers of small convolutional networks."""
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
