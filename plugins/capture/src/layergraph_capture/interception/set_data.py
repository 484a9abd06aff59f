"""Assignments of ``tensor.data``, recorded as copies of the new numbers into the old memory.

With an assignment, the tensor gets the memory of the new one. Copies do the same for the model if
nothing else has the memory of either, and if autograd has not kept the tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch

from layergraph.ir.values import leaves
from layergraph.tensors.memory import is_plain, storage_of
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.tracing.module_call import (
    StateRead,
    TracedValue,
    calls_in,
    values_in,
)
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.interception.torch_modes import RecordingSwitch
from layergraph_capture.trackers.tensors import Tensors

SET_DATA = torch.Tensor.data.__set__  # type: ignore[attr-defined]
# Autograd keeps no part of their arguments, but at most the tensors, which get the new numbers.
_PLAIN = frozenset("add clone data detach div lerp mul sub to".split())
_DETACHING = frozenset({"data", "detach"})
REASON = "setting the attribute 'data' of a tensor"


class Assignments:
    """Decides which assignments may become copies.

    Args:
        module_index: the model.
        recorder: holds the calls so far.
        tensors: maps tensors to their values.
        switch: turns recording off for a call.
    """

    def __init__(
        self,
        module_index: ModuleIndex,
        recorder: Recorder,
        tensors: Tensors,
        switch: RecordingSwitch,
    ) -> None:
        self._module_index = module_index
        self._recorder = recorder
        self._tensors = tensors
        self._switch = switch
        # Values which no call may read any more, each with the position after the assignment.
        self._parted: dict[TracedValue, int] = {}

    def copies(
        self,
        tensor: torch.Tensor,
        new: Any,
        recording: Callable[[], AbstractContextManager[object]],
    ) -> bool:
        """Make and record an assignment as a copy; return False if it may be none.

        Args:
            tensor: the tensor.
            new: the tensor that is assigned to its data.
            recording: returns the context in which calls are recorded.
        """
        aliases: list[TracedValue] | None
        aliases = self._switch.unrecorded(self._aliases, (tensor, new), {})
        if aliases is None:
            return False
        with recording():
            tensor.data.copy_(new.detach())
        self._parted |= dict.fromkeys(aliases, self._recorder.position)
        return True

    def _aliases(self, tensor: torch.Tensor, new: Any) -> list[TracedValue] | None:
        """Return the values with the memory of either tensor; None if no copy does the same."""
        value = self._tensors.value_of(new) if isinstance(new, torch.Tensor) else None
        if (
            value is None
            or value.call is None
            or not is_plain(tensor)
            or not is_plain(new)
            or _form(tensor) != _form(new)
            or self._is_kept(tensor)
        ):
            return None
        memory = {storage_of(tensor), storage_of(new)}
        if any(each is not tensor and storage_of(each) in memory for each in self._state()):
            return None
        living = [each for each in self._tensors.living() if storage_of(each) in memory]
        known = [self._tensors.known(each) for each in living]
        found = [each for each in known if isinstance(each, TracedValue)]
        is_given = any(each.call is None for each in found)
        return None if is_given or len(found) < len(known) else found

    def _state(self) -> Iterator[torch.Tensor]:
        for each in self._module_index:
            for _, tensor, _ in each.tensors():
                yield tensor

    def _is_kept(self, tensor: torch.Tensor) -> bool:
        """Return whether a call may have kept a tensor, or part of it, for gradients."""
        key = self._tensors.keys.get(id(tensor))
        if key is None:
            return True
        trained = {self._tensors.keys[id(each)] for each in self._state() if each.requires_grad}
        aliases: set[object] = {StateRead(key)}
        # Values that need no gradients.
        detached: set[object] = set()
        for call in calls_in(self._recorder.root):
            if call.kind == "module":
                held = self._module_index.at(call.target).tensors()
                if any(each is tensor for _, each, _ in held):
                    return True
                continue
            read = {
                each
                for each in leaves(call.args, call.kwargs)
                if isinstance(each, StateRead | TracedValue)
            }
            name = call.target.rpartition(".")[2]
            if name in _DETACHING or all(
                each in detached if isinstance(each, TracedValue) else each.key not in trained
                for each in read
            ):
                detached.add(call.value)
            if not aliases.isdisjoint(read):
                if call.value in detached:
                    # It may be a part of the tensor, and another call may keep that.
                    aliases.add(call.value)
                elif name not in _PLAIN:
                    return True
        return False

    def are_read_later(self) -> bool:
        """Return whether a call after an assignment reads a value that had one of its memories."""
        if not self._parted:
            return False
        read = [
            (each, call.value.position)
            for call in calls_in(self._recorder.root)
            for each in call.reads()
        ]
        read += [(each, self._recorder.position) for each in values_in(self._recorder.root.result)]
        return any(position >= self._parted.get(each, sys.maxsize) for each, position in read)


def _form(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.device, tensor.layout
