"""The snapshot of a model's tensors, restored after a run."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import torch
from torch.nn.modules import module as hooks

from layergraph.errors import CaptureError
from layergraph.tensors.memory import storage_of, unsuitable, version
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.undo import undoing
from layergraph_capture.trackers.constants import Constants
from layergraph_capture.trackers.placement import Placement


class StateSnapshot:
    """Context manager that restores the tensors of a model.

    It saves buffers and constants at the beginning. Parameters are large, so it saves one only
    before a call changes it or exposes its memory.

    Args:
        module_index: the model.
        constants: the tensors that the model reads but does not register.

    Attributes:
        changed: the keys of the tensors whose numbers the run has changed.
        saves_parameters: whether something was about to change one, or got hold of its memory.

    Raises:
        CaptureError: on exit, if the model changed a tensor in a way that a graph cannot repeat.
    """

    def __init__(self, module_index: ModuleIndex, constants: Constants) -> None:
        self._module_index = module_index
        self._kinds = module_index.kinds
        self._constants = constants
        self._saved: dict[int, torch.Tensor] = {}
        self._tensors: dict[int, tuple[str, torch.Tensor]] = {}
        self._places: dict[int, Placement] = {}
        self._versions: dict[int, int] = {}
        self._undoing = undoing(self.put_back)
        self.saves_parameters = False
        self.changed: set[str] = set()
        # Each parameter, its gradient, and a copy of this.
        self._gradients: list[tuple[torch.Tensor, Any, Any]] | None = None

    def tensors(self) -> Iterator[torch.Tensor]:
        """Yield the tensors that the snapshot restores."""
        for _, tensor in self._tensors.values():
            yield tensor

    def save(self, *tensors: object) -> None:
        """Save all tensors of the model that share memory with one of the given tensors."""
        for each in tensors:
            if isinstance(each, torch.Tensor):
                for block in self._kinds.blocks(each):
                    for identity in self._by_memory.get(storage_of(block), ()):
                        self._save(identity)

    def keep(self, tensor: torch.Tensor) -> None:
        """Save a tensor that the model has not registered, and that the run has not computed."""
        if unsuitable(tensor) is None:
            self._note("", tensor)
            for block in self._kinds.blocks(tensor):
                self._save(id(block))

    def keep_gradients(self) -> None:
        """Save the gradients of parameters, before a run adds to them."""
        if self._gradients is None:
            parameters = list(self._module_index.root.module.parameters())
            self._gradients = [(each, each.grad, _copied(each.grad)) for each in parameters]

    def _put_back_gradients(self) -> None:
        with torch.no_grad():
            for parameter, gradient, numbers in self._gradients or ():
                if gradient is not None and numbers is not None:
                    gradient.copy_(numbers)
                parameter.grad = gradient

    def _save(self, identity: int) -> None:
        if identity not in self._saved:
            tensor = self._tensors[identity][1]
            self._saved[identity] = tensor.detach().clone()
            self.saves_parameters |= isinstance(tensor, torch.nn.Parameter)
            self._places[identity] = Placement(tensor)

    def __enter__(self) -> Self:
        if hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
            raise CaptureError(
                "there are global module hooks, which a graph cannot hold; remove them"
            )
        self._undoing.__enter__()
        self._by_memory: dict[int | None, list[int]] = {}
        for each in self._module_index:
            for name, tensor, _ in each.tensors():
                self._note(each.key(name), tensor)
        for constant in self._constants:
            if unsuitable(constant) is None or self._kinds.flatten(constant) is not None:
                self._note("", constant)
        for identity, (_, tensor) in self._tensors.items():
            self._by_memory.setdefault(storage_of(tensor), []).append(identity)
            if not isinstance(tensor, torch.nn.Parameter):
                self._save(identity)
        self._versions = {key: version(tensor) for key, (_, tensor) in self._tensors.items()}
        return self

    def _note(self, key: str, tensor: torch.Tensor) -> None:
        for block in self._kinds.blocks(tensor):
            self._tensors.setdefault(id(block), (key, block))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        moved, unseen = self.put_back()
        self._tensors.clear()
        self._places.clear()
        self._undoing.__exit__(kind, error, trace)
        if error is None and moved is not None:
            raise CaptureError(
                f"the model resizes {moved or 'a tensor that it has not registered'}, or gives it "
                "other memory, while it runs, which a graph cannot; register a buffer of the size "
                "that it needs"
            )
        if error is None and unseen is not None:
            raise CaptureError(
                f"the model changes {unseen or 'a tensor that it has not registered'} in a way in "
                "which a graph cannot; change a buffer, by a function that works in place"
            )

    def put_back(self) -> tuple[str | None, str | None]:
        """Restore the saved tensors; a second call does nothing.

        Returns:
            The key of a tensor with a changed shape or memory, and the key of a tensor whose
            numbers changed unseen; each may be None.
        """
        self._put_back_gradients()
        return self._put_back_places(), self._put_back_numbers()

    def _put_back_places(self) -> str | None:
        moved = None
        for identity, place in self._places.items():
            key, tensor = self._tensors[identity]
            if place.put_back(tensor):
                moved = key
        return moved

    def _put_back_numbers(self) -> str | None:
        unseen = None
        with torch.no_grad():
            for identity, (key, tensor) in self._tensors.items():
                saved = self._saved.get(identity)
                # Some kernels, such as batch norm, do not increase the version counter.
                if saved is not None and not _same_bits(tensor, saved):
                    tensor.copy_(saved)
                    self.changed.add(key)
                    changed = not key
                else:
                    was = self._versions.get(identity)
                    changed = saved is None and was is not None and version(tensor) != was
                unseen = key if changed else unseen
        return unseen


def _copied(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.is_meta or torch.equal(_bits(one), _bits(other))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor's memory as integers, so that NaN equals NaN, and -0.0 differs from 0.0."""
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return tensor
    plain = tensor.resolve_conj().resolve_neg()
    if plain.is_complex():
        # Some complex dtypes have no integer dtype of their size.
        plain = torch.view_as_real(plain)
    dtype = _INTEGERS.get(plain.dtype.itemsize, plain.dtype)
    return plain if plain.dtype is torch.bool else plain.view(dtype)


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
