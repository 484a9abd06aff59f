"""The borders of module calls: the tensors that pass them become new values of the graph."""

from __future__ import annotations

from typing import Any

import torch

from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.trackers.tensors import Tensors, are_same


class Borders:
    """Gives the model aliases of tensors that cross the border of a module call.

    Args:
        recorder: records the values of the aliases.
        tensors: maps tensors to their values.
    """

    def __init__(self, recorder: Recorder, tensors: Tensors) -> None:
        self._recorder = recorder
        self._tensors = tensors

    def renamed(self, result: Any) -> Any:
        """See :meth:`Tracer.renamed`."""
        if type(result) is tuple:
            renamed = [self.renamed(each) for each in result]
            return result if are_same(renamed, result) else tuple(renamed)
        if isinstance(result, torch.Tensor):
            value = self._tensors.value_of(result)
            if value is not None and not self._recorder.is_inside(value):
                return self._tensors.alias(result, self._recorder.call("same", "", (value,), {}))
        return result

    def passed(self, args: Any, kwargs: Any) -> Any:
        """See :meth:`Tracer.passed`."""
        aliases: dict[int, torch.Tensor] = {}
        return self._passed(args, aliases), self._passed(kwargs, aliases)

    def _passed(self, given: Any, aliases: dict[int, torch.Tensor]) -> Any:
        kind = type(given)
        if isinstance(given, torch.Tensor):
            key = None if self._tensors.value_of(given) else self._tensors.keys.get(id(given))
            if key is not None and id(given) not in aliases:
                value = self._recorder.call("state", key, (), {})
                aliases[id(given)] = self._tensors.alias(given, value)
            return aliases.get(id(given), given)
        if kind is tuple or kind is list:
            inside = [self._passed(each, aliases) for each in given]
            return given if are_same(inside, given) else kind(inside)
        if kind is dict:
            by_name = {key: self._passed(each, aliases) for key, each in given.items()}
            return given if are_same(by_name.values(), given.values()) else by_name
        return given
