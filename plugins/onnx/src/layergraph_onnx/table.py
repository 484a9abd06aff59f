"""The rows of the hook ``lowerings``: a table from layers and functions to handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layergraph import Lowering
from layergraph_backends import Step
from layergraph_onnx.call import Call
from layergraph_onnx.target import Onnx

Handler = Callable[[Call], Any]

_HOMES = (
    *("torch", "torch.nn.functional", "torch.special", "torch.linalg", "torch._C._nn"),
    *("torch.Tensor", "operator", "math", "layergraph"),
)


class Table:
    """Handlers by the names of layers and functions."""

    def __init__(self) -> None:
        self._rows: list[Lowering] = []

    def functions(self, names: str) -> Callable[[Handler], Handler]:
        """Register a handler for functions.

        Args:
            names: their names without namespaces, separated by spaces: a function of torch, a
                method and an operator of one name do the same. A method whose name ends with an
                underscore does it in place, which the walk follows.
        """

        def register(handler: Handler) -> Handler:
            self._add(handler, functions=[full for name in names.split() for full in _full(name)])
            return handler

        return register

    def layers(self, names: str) -> Callable[[Handler], Handler]:
        """Register a handler for types of layers, separated by spaces."""

        def register(handler: Handler) -> Handler:
            self._add(handler, layers=names.split())
            return handler

        return register

    def _add(self, handler: Handler, **names: list[str]) -> None:
        def lower(step: Step, backend: Onnx) -> Any:
            with backend.at(step):
                return handler(Call(step, backend))

        lower.__name__ = handler.__name__
        self._rows.append(Lowering(Onnx.target, lower, **names))

    @property
    def rows(self) -> list[Lowering]:
        """The rows of the hook."""
        return self._rows


def _full(name: str) -> list[str]:
    return [
        *(f"{home}.{name}" for home in _HOMES),
        f"torch.{name}_",
        f"torch.nn.functional.{name}_",
        f"torch.Tensor.{name}_",
        f"torch.Tensor.__{name}__",
        f"torch.Tensor.__i{name}__",
        f"operator.i{name}",
    ]


TABLE = Table()
"""The handlers of this package."""
