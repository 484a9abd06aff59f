"""Hidden states of leaves: tensors that a leaf keeps from one call to the next.

The layer of a rebuilt model keeps such tensors as well. If the model's code assigns one between two
calls, the graph passes it as an argument of the next call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from layergraph.ir import Value
from layergraph.torch2ir.indexing.leaves import assigned_states, note_hidden
from layergraph.torch2ir.indexing.module_index import ModuleInfo
from layergraph.torch2ir.tracing.module_call import DeferredCall, TracedValue
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.trackers.tensors import Tensors


class HiddenStates:
    """Records assignments of hidden states before calls of leaves, and reads after them.

    Args:
        recorder: records the reads.
        tensors: maps tensors to their values.
        to_literal: returns a value as a literal.
    """

    def __init__(
        self, recorder: Recorder, tensors: Tensors, to_literal: Callable[[Any], Value]
    ) -> None:
        self._recorder = recorder
        self._tensors = tensors
        self._to_literal = to_literal

    def enter(
        self, module_info: ModuleInfo, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call as literals, with the states that code has assigned."""
        literals, named = self._to_literal(args), self._to_literal(kwargs) if kwargs else {}
        if not module_info.hidden:
            return literals, named
        # The call replaces these, so a later use of the old tensors must read them before the call.
        self._bind(module_info)
        for name, tensor in assigned_states(module_info).items():
            value = self._to_literal(tensor)
            parameters = [*inspect.signature(module_info.module.forward).parameters]
            place = parameters.index(name)
            if place >= len(args):
                if kwargs.get(name) is None:
                    named = {**named, name: value}
            elif args[place] is None:
                literals = (*literals[:place], value, *literals[place + 1 :])
        return literals, named

    def leave(self, module_info: ModuleInfo) -> None:
        """Record the states after a call."""
        if module_info.hidden:
            note_hidden(module_info)
            self._bind(module_info)

    def _bind(self, module_info: ModuleInfo) -> None:
        late = self._recorder.late()
        for name, tensor in module_info.hidden.items():
            if tensor is not None and not self._tensors.is_value(tensor):
                self._tensors.bind(tensor, _read(late, module_info.key(name)))


def _read(late: DeferredCall, key: str) -> Callable[[], TracedValue]:
    return lambda: late.call(key, key, (), kind="state")
