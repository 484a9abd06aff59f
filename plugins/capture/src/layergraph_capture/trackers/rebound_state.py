"""Tensors that forward replaces: ``self.running = self.running * 0.9 + x.mean() * 0.1``.

A graph reads such a tensor where a module call begins, and sets it where the code has set it, so
that the next call of the module, in this run or a later one, reads the new tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from layergraph.errors import CaptureError
from layergraph.tensors.memory import is_plain
from layergraph.tensors.state import Memory, describe_constant
from layergraph.torch2ir.indexing.module_index import ModuleIndex, ModuleInfo
from layergraph.torch2ir.state.changes import Change
from layergraph.torch2ir.state.same_objects import are_one


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a tensor: an attribute of a module.

    Attributes:
        holder: the buffers of the module, or its plain attributes.
        name: the name of the attribute.
        key: the key of the tensor in the graph.
    """

    holder: dict[str, Any]
    name: str
    key: str


class ReboundState:
    """The tensors that the code of a model replaces, for all runs of a capture.

    Args:
        module_index: the model.
        memory: where its tensors lie in memory.

    Attributes:
        constants: those that are plain attributes, as they are before the runs, by key.
    """

    def __init__(self, module_index: ModuleIndex, memory: Memory) -> None:
        self._module_index = module_index
        self._memory = memory
        self._found: dict[str, tuple[ModuleInfo, Place]] = {}
        self._adopted: dict[str, tuple[ModuleInfo, Place]] = {}
        # The numbers of tensors that graphs set, as of each capture.
        self._counts: set[int] = set()
        self.constants: dict[str, torch.Tensor] = {}

    @property
    def places(self) -> list[Place]:
        """The place of each tensor that graphs set."""
        return [place for _, place in self._adopted.values()]

    def note_capture(self) -> None:
        """Note that a capture in one mode begins."""
        self._counts.add(len(self._adopted))

    def is_same_in_both_modes(self) -> bool:
        """Return whether the last captures have set the same tensors.

        Code may replace a tensor in one mode only; the graph of the other mode has to read it in
        the same way.
        """
        is_same = len(self._counts) < 2
        self._counts.clear()
        return is_same

    def of(self, module_info: ModuleInfo) -> Iterator[Place]:
        """Yield the places in a module."""
        for owner, place in self._adopted.values():
            if owner is module_info:
                yield place

    def note(self, changes: Sequence[Change]) -> None:
        """Note the tensors that a run has replaced."""
        for change in changes:
            for name in _replaced(change):
                info = self._module_index.at(change.reached.path)
                place = Place(change.reached.state, name, info.key(name))
                self._found.setdefault(place.key, (info, place))

    def adopt(self) -> bool:
        """Let graphs set the noted tensors; return whether there are new ones."""
        new = {key: each for key, each in self._found.items() if key not in self._adopted}
        self._found.clear()
        new = {key: each for key, each in new.items() if self._is_settable(*each)}
        self._adopted |= new
        return bool(new)

    def _is_settable(self, info: ModuleInfo, place: Place) -> bool:
        tensor = place.holder.get(place.name)
        if info.is_leaf or not isinstance(tensor, torch.Tensor) or not is_plain(tensor):
            return False
        if place.holder is info.module._buffers:
            owned = [each for known in self._module_index for _, each, _ in known.tensors()]
            return sum(each is tensor for each in owned) == 1
        try:
            self._memory.claim(tensor, repr(place.key))
            initial = tensor.detach().clone()
            describe_constant(initial, repr(place.key), self._module_index.kinds)
        except CaptureError:
            return False
        self.constants[place.key] = initial
        return not tensor.requires_grad

    def holds(self, change: Change) -> bool:
        """Return whether a change does nothing but replace tensors that graphs set."""
        names = list(_replaced(change))
        if not names:
            return False
        keys = [self._module_index.at(change.reached.path).key(name) for name in names]
        changed = [
            name
            for name in {*change.now, *change.was}
            if not are_one(change.now.get(name), change.was.get(name))
        ]
        return len(changed) == len(names) and self._adopted.keys() >= {*keys}


def _replaced(change: Change) -> Iterator[str]:
    """Yield the attributes of a module that held a tensor before a run, and hold another one."""
    members = vars(change.module)
    if change.is_outside or all(
        change.reached.state is not each for each in (members, members.get("_buffers"))
    ):
        return
    for name, was in change.was.items():
        both = was, change.now.get(name)
        if not are_one(*both) and all(
            isinstance(each, torch.Tensor) and not isinstance(each, nn.Parameter) for each in both
        ):
            yield name
