"""The rows of the hook ``lowerings``: a table from layers and functions to handlers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import layergraph as lg
from layergraph import Lowering
from layergraph.ir.values import leaves
from layergraph_backends import Step
from layergraph_onnx.call import Call
from layergraph_onnx.target import Maybe, Onnx
from layergraph_shapes import TensorMeta

Handler = Callable[[Call], Any]

_HOMES = (
    *("torch", "torch.nn.functional", "torch.special", "torch.linalg", "torch._C._nn"),
    *("torch.Tensor", "operator", "math", "layergraph"),
)


MAYBE = "it takes a value that is None on one way of a decision"


def has_maybe(step: Step) -> bool:
    """Return whether an argument is None on one way of a decision."""
    return any(isinstance(leaf, Maybe) for leaf in leaves(step.args, step.kwargs))


def _has_complex(step: Step) -> bool:
    metas = leaves((step.meta, step.arg_metas), step.kwarg_metas)
    return any(isinstance(each, TensorMeta) and each.dtype.is_complex for each in metas)


# Arguments without a meaning in ONNX: descriptions of results have the dtype, and files have no
# devices or memory layouts.
_WITHOUT_MEANING = frozenset(
    "dtype device layout requires_grad pin_memory non_blocking memory_format copy inplace".split()
)


class _Noting(dict[str, Any]):
    """The keyword arguments, which record reads, so that no handler ignores one."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(given)
        self._read: set[object] = set()

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument."""
        self._read.add(name)
        return super().get(name, default)

    def unread(self) -> list[str]:
        """Return the names of meaningful arguments that the handler has not read."""
        return [
            name
            for name, value in self.items()
            if value is not None and name not in self._read and name not in _WITHOUT_MEANING
        ]


class Table:
    """Handlers by the names of layers and functions."""

    def __init__(self) -> None:
        self._rows: list[Lowering] = []
        self._taking_maybe: set[Handler] = set()

    def takes_maybe(self, handler: Handler) -> Handler:
        """Mark a handler as accepting values that are None on one way of a decision."""
        self._taking_maybe.add(handler)
        return handler

    def functions(self, names: str) -> Callable[[Handler], Handler]:
        """Register a handler for functions.

        Args:
            names: their names without namespaces, separated by spaces: a function, a method and an
                operator with one name share a handler. A trailing underscore means in place, which
                the walk handles.
        """

        def register(handler: Handler) -> Handler:
            self._add(handler, functions=[full for name in names.split() for full in _full(name)])
            return handler

        return register

    def operators(self, names: str) -> Callable[[Handler], Handler]:
        """Register a handler for operators of ATen, as in ``_grouped_mm.default``."""

        def register(handler: Handler) -> Handler:
            self._add(handler, functions=[f"torch.ops.aten.{name}" for name in names.split()])
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
            if handler not in self._taking_maybe and has_maybe(step):
                return lg.decline(MAYBE)
            if _has_complex(step):
                return lg.decline("it computes with complex numbers, which no operator takes")
            noting = _Noting(step.kwargs)
            with backend.at(step):
                value = handler(Call(replace(step, kwargs=noting), backend))
            if value is not None and (unread := noting.unread()):
                return lg.decline(f"it takes the argument {unread[0]!r}")
            return value

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
