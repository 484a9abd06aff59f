"""Calls of leaves: each is recorded as one call of a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layergraph.torch2ir.indexing.leaves import (
    has_other_tensors,
    is_changed,
    is_untouched,
    note_left,
)
from layergraph.torch2ir.indexing.module_index import ModuleInfo
from layergraph.torch2ir.state.global_state import may_layer_draw
from layergraph.torch2ir.tracing.tracer import takes
from layergraph_capture.interception.torch_modes import without_dispatch
from layergraph_capture.trackers.hidden_states import HiddenStates
from layergraph_capture.trackers.snapshot import StateSnapshot
from layergraph_capture.trackers.tensors import versions

if TYPE_CHECKING:
    from layergraph_capture.tracer import EagerTracer


class LeafCalls:
    """Makes the calls of leaves, and records them.

    Args:
        run: the tracer.
        hidden: the hidden states of the leaves.
        snapshot: keeps the tensors that a leaf may change.
    """

    def __init__(self, run: EagerTracer, hidden: HiddenStates, snapshot: StateSnapshot) -> None:
        self._run = run
        self._hidden = hidden
        self._snapshot = snapshot

    def call(
        self, module_info: ModuleInfo, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """Record a call of a leaf, and make it."""
        run = self._run
        # What is asked here of tensors, the model does not ask.
        with torch._C.DisableTorchFunction(), without_dispatch(with_wrappers=False):
            run.compare_state()
            is_swapped = self._is_swapped(module_info)
        if is_swapped:
            # It computes with values of the graph: what its code calls is recorded.
            return run.watch.on(original)(module_info.module, *args, **kwargs)
        with torch._C.DisableTorchFunction(), without_dispatch(with_wrappers=False):
            lowered, named = self._hidden.enter(module_info, args, kwargs)
            before = versions(args, kwargs)
            if _renorms(module_info.module):
                self._snapshot.save(*module_info.module.parameters())
        try:
            result = run.unrecorded(original, (module_info.module, *args), kwargs)
        except Exception as error:
            if takes(module_info.module, args, kwargs):
                run.failed(module_info.path, error)
            raise
        with torch._C.DisableTorchFunction():
            if may_layer_draw(type(module_info.module)):
                run.state.drew()
            if is_untouched(module_info):
                module_info.as_left = module_info.as_found
            else:
                run.unrecorded(note_left, (module_info,), {})
            run.guards.note_changes(
                args, before, is_known=bool(vars(module_info.module).get("inplace"))
            )
            if not run.guards.changes_state:
                run.guards.changes_state = _changes_own_state(module_info.module)
            value = run.recorder.call("module", module_info.path, lowered, named)
            result = run.tensors.bound(result, value, before)
            self._hidden.leave(module_info)
            return result

    def _is_swapped(self, module_info: ModuleInfo) -> bool:
        """Return whether code has given a leaf other tensors for a call; refuse other changes."""
        run = self._run
        if not is_changed(module_info, run.trains):
            return False
        is_swapped = has_other_tensors(module_info, run.trains)
        if not is_swapped:
            run.refuse(f"a change of {module_info.path!r} that lasts for a call")
        return is_swapped


def _changes_own_state(module: nn.Module) -> bool:
    """Return whether a layer may change its tensors, for example in the other mode."""
    return _renorms(module) or next(module.buffers(), None) is not None


def _renorms(module: nn.Module) -> bool:
    """Return whether a layer changes its own weights when it is called."""
    # Asking a module for what it does not have takes it long.
    said = vars(module).get("max_norm", getattr(type(module), "max_norm", None))
    return said is not None
