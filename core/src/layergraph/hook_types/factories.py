"""A row of the hook ``functions``: classes of autograd.Function that a function makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Factory:
    """Classes of ``torch.autograd.Function`` that a function makes, each with other arguments.

    A file cannot name such a class. So a graph calls ``call`` instead, with the arguments of the
    class, and with the arguments of the factory as keywords.

    Attributes:
        made: the module and the qualified name of the classes: ``"acme.ternary.<locals>.Ternary"``.
        call: the full name of a function that makes the class and applies it: a global of a module.
        arguments: ``arguments(cls)`` returns the arguments of the factory for one class, by name:
            plain values.

    Example:
        >>> import layergraph as lg
        >>> row = lg.Factory(
        ...     made="acme.ternary.<locals>.Ternary",
        ...     call="acme.apply_ternary",
        ...     arguments=lambda cls: {"threshold": cls.threshold},
        ... )
        >>> row.call
        'acme.apply_ternary'
    """

    made: str
    call: str
    arguments: Callable[[type], Mapping[str, Any]]
