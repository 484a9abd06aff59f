"""Meta tensors in place of the results of a run.

A replay only compares identities, shapes and dtypes of tensors. So the log of a run stores a
description of each result, and does not keep the result alive. For the replay, each description
becomes a meta tensor.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from layergraph.tensors.memory import is_plain
from layergraph_capture.trackers.tensors import Tensors

# Enough bytes for a number of any dtype. All are zero, because zero is a valid index.
_BYTES = 16


@dataclass(slots=True, eq=False)
class _Memory:
    """The memory that several tensors may share.

    It allocates no C memory, because small blocks between large results would fragment malloc's
    heap.
    """

    device: torch.device
    storage: torch.UntypedStorage | None = None

    def made(self) -> torch.UntypedStorage:
        if self.storage is None:
            zeros = torch.zeros(_BYTES, dtype=torch.uint8, device=self.device)
            self.storage = zeros.untyped_storage()
        return self.storage


@dataclass(slots=True, eq=False)
class _Described:
    """The description of a result: the facts that a replay reads, and its value."""

    shape: torch.Size
    dtype: torch.dtype
    requires_grad: bool
    is_leaf: bool
    memory: _Memory
    value: Any
    tensor: torch.Tensor | None = None


class StandIns:
    """Describes each result of a run, and makes stand-in tensors from the descriptions.

    Args:
        tensors: maps tensors to their values.
        own: the tensors that exist before the run, and stay.

    Attributes:
        kept: the bytes of results that cannot be described, such as sparse tensors.
    """

    def __init__(self, tensors: Tensors, own: Iterable[torch.Tensor]) -> None:
        self.kept = 0
        self._tensors = tensors
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], _Described]] = {}
        # A weak reference, because a new storage may get the address of a dead one.
        self._memory: dict[int, tuple[weakref.ref[torch.UntypedStorage], _Memory]] = {}
        with torch._C.DisableTorchFunction():
            self._own = {each.untyped_storage()._cdata for each in own if is_plain(each)}

    def given(self, value: Any) -> Any:
        """Describe the arguments of a step. Tensors that no step returned precede the run."""
        return _mapped(value, torch.Tensor, self._of_argument)

    def made(self, value: Any) -> Any:
        """Describe the result of a step."""
        return _mapped(value, torch.Tensor, self._of_result)

    def tensors(self, described: Any) -> Any:
        """Return tensors in place of descriptions; two share memory if the results did."""
        with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            return _mapped(described, _Described, self._tensor)

    def _of_argument(self, tensor: torch.Tensor) -> torch.Tensor | _Described:
        known = self._known.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        if type(tensor) is not nn.Parameter:  # a quick check: nearly all parameters are in own
            with torch._C.DisableTorchFunction():
                if is_plain(tensor):
                    self._own.add(tensor.untyped_storage()._cdata)
        return tensor

    def _of_result(self, tensor: torch.Tensor) -> torch.Tensor | _Described:
        known = self._known.get(id(tensor))
        if known is not None and known[0]() is tensor:
            described: _Described | None = known[1]
        else:
            with torch._C.DisableTorchFunction():
                described = self._described(tensor)
        if described is None:
            return tensor
        described.value = self._tensors.known(tensor)
        return described

    def _described(self, tensor: torch.Tensor) -> _Described | None:
        if type(tensor) is not torch.Tensor or tensor.is_meta:
            return None
        if not is_plain(tensor):
            self.kept += tensor.numel() * tensor.element_size()
            return None
        storage = tensor.untyped_storage()
        if storage._cdata in self._own:
            return None
        living, memory = self._memory.get(storage._cdata, (None, None))
        if memory is None or living is None or living() is None:
            memory = _Memory(tensor.device)
            self._memory[storage._cdata] = weakref.ref(storage), memory
        gradients = tensor.requires_grad, tensor.is_leaf
        described = _Described(tensor.shape, tensor.dtype, *gradients, memory, None)
        self._known[id(tensor)] = weakref.ref(tensor), described
        return described

    def _tensor(self, described: _Described) -> torch.Tensor:
        if described.tensor is None:
            memory, shape = described.memory.made(), described.shape
            tensor = torch.empty(0, dtype=described.dtype, device=memory.device)
            tensor.set_(memory, 0, shape, (0,) * len(shape))
            if described.requires_grad:
                tensor.requires_grad_()
                if not described.is_leaf:
                    with torch.enable_grad():
                        tensor = tensor.view_as(tensor)
            described.tensor = tensor
            if described.value is not None:
                self._tensors.bind_alike(tensor, described.value)
        return described.tensor


def with_memory(value: Any) -> Any:
    """Return a value with copies of its tensors, which a module may change in place."""
    return _mapped(value, torch.Tensor, _copied)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    if type(tensor) is not torch.Tensor or not is_plain(tensor):
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def _mapped(value: Any, cls: type, change: Callable[[Any], Any]) -> Any:
    """Return a value with a function applied to each instance of a class inside."""
    if isinstance(value, cls):
        return change(value)
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is tuple or kind is list or kind.__module__ == _NAMED_RESULTS:
        # Many items are atoms, and a call for each would be slow.
        return kind([e if type(e) in _ATOMS else _mapped(e, cls, change) for e in value])
    if kind is dict:
        return {key: _mapped(each, cls, change) for key, each in value.items()}
    if kind is slice:
        ends = (value.start, value.stop, value.step)
        return slice(*[_mapped(each, cls, change) for each in ends])
    return value


_ATOMS = frozenset({bool, int, float, str, type(None), torch.dtype, torch.device, torch.Size})
# The module of torch's named result classes, such as that of torch.max.
_NAMED_RESULTS = "torch.return_types"
