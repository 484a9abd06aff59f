"""A row of the hook ``lowerings``: a back end's handler of a layer or a function."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Lowering:
    """A handler of a target, one row of the hook ``lowerings``.

    Attributes:
        target: the name of the target, in lower case: ``"onnx"``.
        function: ``function(step, backend)`` returns the value of the target for one
            :class:`layergraph_backends.Step`. It returns None to decline, or declines with a
            reason: ``return layergraph.decline("its padding mode is 'reflect'")``.
        layers: the types of the layers that it handles.
        functions: the names of the functions that it handles. A row without layers and functions is
            asked for each step that no other row handles.

    Example:
        >>> import layergraph as lg
        >>> def lower_relu(step, backend):
        ...     return f"max(0, {step.args[0]})"
        >>> lg.Lowering("acme", lower_relu, layers=["relu"], functions=["torch.relu"]).target
        'acme'
    """

    target: str
    function: Callable[[Any, Any], Any]
    layers: Collection[str] = ()
    functions: Collection[str] = ()
