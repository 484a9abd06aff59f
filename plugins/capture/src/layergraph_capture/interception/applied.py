"""Calls of ``torch.autograd.Function``, whose code the rebuilt model runs unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from layergraph.torch2ir.tracing.applied_functions import reads_of
from layergraph_capture.arguments import tensors_in
from layergraph_capture.interception.torch_modes import RecordingSwitch
from layergraph_capture.trackers.tensors import Tensors


def is_function(value: Any) -> bool:
    """Return whether an argument is a function, or a module, of the model's code."""
    return callable(value) and not isinstance(value, torch.Tensor | type)


class AppliedFunctions:
    """Makes these calls, and refuses functions that read tensors of the model other than arguments.

    Args:
        tensors: maps tensors to their values.
        switch: turns recording off for a call.
        refuse: records a refusal.

    Attributes:
        inside: the number of functions among the arguments that run now; these become bodies.
    """

    def __init__(
        self, tensors: Tensors, switch: RecordingSwitch, refuse: Callable[[str], None]
    ) -> None:
        self._tensors = tensors
        self._switch = switch
        self._refuse = refuse
        # The number of functions of the model's code that run inside, as arguments of such a call.
        self.inside = 0

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call, and check the arguments of the operations inside it."""
        given = {id(each) for each in tensors_in((args, kwargs))}
        read: dict[str, None] = {}

        def see(*arguments: Any) -> None:
            for each in () if self.inside else tensors_in(arguments):
                place = None if id(each) in given else self._tensors.place_of(each)
                if place is not None:
                    read[place] = None

        result = self._switch.seen(see, func, args, kwargs)
        odd = {type(each).__qualname__ for each in _parts(result) if type(each) not in _PLAIN}
        problems = [*map(reads_of, read), *(f"it returns a {each}; return tensors" for each in odd)]
        for problem in problems:
            self._refuse(f"{func.__self__.__qualname__}, an autograd.Function: {problem}")
        return result


_PLAIN = frozenset({torch.Tensor, nn.Parameter, bool, int, float, complex, str, bytes, type(None)})


def _parts(result: Any) -> list[Any]:
    """Return the leaves of a nested result."""
    if isinstance(result, dict):
        result = [*result.values()]
    if isinstance(result, tuple | list):
        return [part for each in result for part in _parts(each)]
    return [result]
