"""The base for back ends: a walk along an IR that asks a handler for each layer and function.

:func:`lower` makes the walk, a :class:`Backend` collects what it gives, and the handlers come from
the rows of the hook ``lowerings``.
"""

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
