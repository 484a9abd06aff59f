"""The tracer of a run of a model whose code replaces tensors of its modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from layergraph.errors import CaptureError
from layergraph.torch2ir.indexing.module_index import ModuleInfo
from layergraph.torch2ir.tracing.module_call import DeferredCall, Trace, TracedValue
from layergraph_capture.tracer import EagerTracer
from layergraph_capture.trackers.rebound_state import Place


class StateTracer(EagerTracer):
    """A run of a model that replaces tensors."""

    def __init__(self, *known: Any) -> None:
        super().__init__(*known)
        self._rebound = self.options.rebound
        # The tensor at each place as the graph knows it, by key.
        self._known: dict[str, Any] = {}
        # For each open module call, the tensors that aliases stand for.
        self._aliased: list[list[tuple[Place, Any, Any]]] = []

    def follow(self, trace: Trace) -> None:
        """See :class:`Tracer`. The tensors that an earlier run has set may decide otherwise."""
        self.decisions.follow([each.answer for each in trace.decisions])

    def enter(
        self, module_info: ModuleInfo, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """See :class:`Tracer`. The module call reads its tensors where it begins."""
        is_root = module_info is self.module_index.root
        if not is_root:
            self._set_changed()
        given = super().enter(module_info, args, kwargs)
        late = self.recorder.late()
        if is_root:
            self.state_tensors.constants |= self._rebound.constants
            for place in self._rebound.places:
                self._known[place.key] = tensor = place.holder[place.name]
                self.tensors.bind(tensor, _read(late, place.key))
            return given
        aliased = []
        for place in self._rebound.of(module_info):
            tensor = self._known[place.key]
            alias = self.unrecorded(tensor.view_as, (tensor,), {})
            self.tensors.bind(alias, _read(late, place.key))
            aliased.append((place, tensor, alias))
            place.holder[place.name] = self._known[place.key] = alias
        self._aliased.append(aliased)
        return given

    def leave(self, module_info: ModuleInfo, result: Any) -> Any:
        """See :class:`Tracer`. The module call sets the tensors that its code has replaced."""
        self._set_changed()
        if module_info is not self.module_index.root:
            for place, tensor, alias in self._aliased.pop():
                if place.holder[place.name] is alias:
                    place.holder[place.name] = self._known[place.key] = tensor
        return super().leave(module_info, result)

    def _set_changed(self) -> None:
        for place in self._rebound.places:
            tensor = place.holder.get(place.name)
            if tensor is self._known[place.key]:
                continue
            if not isinstance(tensor, torch.Tensor):
                raise CaptureError(
                    f"forward sets {place.key!r}, a tensor, to a {type(tensor).__name__}, which a "
                    "graph cannot; set it to a tensor, such as one of zeros"
                )
            self.recorder.call("state", place.key, (self.read(tensor),), {})
            self._known[place.key] = tensor


def _read(late: DeferredCall, key: str) -> Callable[[], TracedValue]:
    return lambda: late.call(key, key, (), kind="state")
