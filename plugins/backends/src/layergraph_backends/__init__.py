"""The base for back ends: a walk through an IR that asks a handler for each layer and function.

:func:`lower` makes the walk, a :class:`Backend` collects the values, and the hook ``lowerings``
provides the handlers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line lists subcommands without torch
    from layergraph_backends.backend import Backend
    from layergraph_backends.errors import Lack, LoweringError
    from layergraph_backends.handlers import handlers_of, targets
    from layergraph_backends.lowering import Lowered, lower
    from layergraph_backends.step import Step

__all__ = [
    "Backend",
    "Lack",
    "Lowered",
    "LoweringError",
    "Step",
    "handlers_of",
    "lower",
    "targets",
]

_HOMES = {
    "Backend": "backend",
    "Lack": "errors",
    "Lowered": "lowering",
    "LoweringError": "errors",
    "Step": "step",
    "handlers_of": "handlers",
    "lower": "lowering",
    "targets": "handlers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
