"""Calls of leaves: each is recorded as one node."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layergraph.torch2ir.indexing.leaves import (
    is_changed,
    is_untouched,
    may_trace_into,
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
    """Makes and records calls of leaves.

    Args:
        run: the tracer.
        hidden: the hidden states of the leaves.
        snapshot: saves tensors before a leaf may change them.
    """

    def __init__(self, run: EagerTracer, hidden: HiddenStates, snapshot: StateSnapshot) -> None:
        self._run = run
        self._hidden = hidden
        self._snapshot = snapshot

    def call(
        self, module_info: ModuleInfo, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """Make and record a call of a leaf."""
        run = self._run
        # These reads of tensors are ours, not the model's.
        with torch._C.DisableTorchFunction(), without_dispatch(with_wrappers=False):
            run.compare_state()
            is_swapped = self._is_swapped(module_info)
        if is_swapped:
            # Its tensors are values of the graph, so trace into the leaf.
            return run.watch.on(original)(module_info.module, *args, **kwargs)
        with torch._C.DisableTorchFunction(), without_dispatch(with_wrappers=False):
            literals, named = self._hidden.enter(module_info, args, kwargs)
            before = versions(args, kwargs)
            if _renorms(module_info.module):
                self._snapshot.save(*module_info.module.parameters())
        try:
            result = run.unrecorded(original, (module_info.module, *args), kwargs)
        except Exception as error:
            if takes(module_info.module, args, kwargs):
                run.refusals.failed(module_info.path, error)
            raise
        with torch._C.DisableTorchFunction():
            if may_layer_draw(type(module_info.module)):
                run.state.drew()
            if is_untouched(module_info):
                module_info.as_left = module_info.as_found
            else:
                run.unrecorded(note_left, (module_info,), {})
            is_known = bool(vars(module_info.module).get("inplace"))
            run.guards.note_changes(args, before, (literals, named), is_known=is_known)
            if not run.guards.changes_state:
                run.guards.changes_state = _changes_own_state(module_info.module)
            value = run.recorder.call("module", module_info.path, literals, named)
            result = run.tensors.bound(result, value, before)
            self._hidden.leave(module_info)
            return result

    def _is_swapped(self, module_info: ModuleInfo) -> bool:
        """Return whether code swaps the tensors of a leaf for a call; refuse other changes."""
        run = self._run
        if not is_changed(module_info, run.trains):
            return False
        is_swapped = may_trace_into(module_info)
        if not is_swapped:
            run.refuse(f"a change of {module_info.path!r} that lasts for a call")
        return is_swapped


def _changes_own_state(module: nn.Module) -> bool:
    """Return whether a layer may change its own tensors, in either mode."""
    return _renorms(module) or next(module.buffers(), None) is not None


def _renorms(module: nn.Module) -> bool:
    """Return whether a call of a layer changes its weights (``max_norm``)."""
    # Module.__getattr__ is slow for a missing attribute.
    said = vars(module).get("max_norm", getattr(type(module), "max_norm", None))
    return said is not None
