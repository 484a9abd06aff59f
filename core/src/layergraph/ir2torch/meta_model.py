"""A model on the meta device, whose tensors real ones replace."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from layergraph.errors import BuildError, StateError
from layergraph.ir import Ir
from layergraph.ir2torch.holder import Holder
from layergraph.ir2torch.load import (
    Key,
    fitting,
    flat,
    given_part,
    keep_alike,
    keys,
    names_of,
    packed_in,
    place_of,
    put,
)
from layergraph.tensors.kinds import Packed, TensorKinds
from layergraph.tensors.memory import without_class
from layergraph.tensors.state import replace


@dataclass(frozen=True)
class MetaModel:
    """A model on the meta device.

    Attributes:
        ir: the IR of the model.
        model: the model.
        modules: the modules of the model, by the name of their implementation.
        listed: the tensors of the model: see :func:`layergraph.ir2torch.load.keys`.
        values: the tensors whose values the IR holds, each with its value.
        kinds: the kinds of tensors that consist of parts.
    """

    ir: Ir
    model: nn.Module
    modules: Mapping[str, nn.Module]
    listed: Sequence[Key]
    values: Sequence[tuple[torch.Tensor, torch.Tensor]]
    kinds: TensorKinds

    @functools.cached_property
    def packed(self) -> Mapping[int, Packed]:
        """The parts of each tensor that consists of parts, by the ``id`` of the tensor."""
        return packed_in(self.listed, self.kinds)

    def stored(
        self, state_dict: Mapping[str, torch.Tensor]
    ) -> tuple[Collection[Key], Mapping[str, torch.Tensor]]:
        """Return the tensors of the model and of a state dict, as a file holds them.

        Raises:
            StateError: as for :func:`layergraph.ir2torch.load.flat`.
        """
        return flat(self.listed, state_dict, self.kinds, self.packed)

    def fill(
        self,
        state_dict: Mapping[str, torch.Tensor],
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> nn.Module:
        """Replace the tensors of the model by those of a state dict. Call it once.

        A tensor is copied only to change its device, dtype or strides, or because inference mode
        made it, which lets no parameter be of it.

        Args:
            state_dict: the weights, or the parts of those that consist of parts, under
                ``KEY.PART``. If a tensor has several keys, one of them is enough.
            device: the device of parameters and buffers.
            dtype: the dtype of the floating-point parameters and buffers, except constants; None:
                the dtypes of the IR.

        Returns:
            The model.

        Raises:
            StateError: the state dict does not fit.
            BuildError: neither the state dict nor the IR has the value of a tensor.
        """
        listed, state_dict = self.stored(state_dict)
        fitting(listed, state_dict)
        if dtype is not None:
            self.cast(dtype)
        in_ir = {id(tensor): value for tensor, value in self.values}
        tensors = {key: tensor for key, tensor, _ in self.listed}
        for names in names_of(tensors).values():
            tensor = tensors[names[0]]
            packed = self.packed.get(id(tensor))
            if packed is not None:
                value = in_ir.get(id(tensor))
                held = {} if value is None else self.kinds.expanded({names[0]: value})
                self._repack(names, packed, {**held, **state_dict}, device)
                continue
            # The last of several names counts, as in load().
            given = [state_dict[name] for name in names if name in state_dict]
            value = given[-1] if given else in_ir.get(id(tensor))
            if value is None:
                raise BuildError(
                    f"{names[0]!r} is in no state dict, and the IR does not say its value; say it"
                )
            if value.is_meta and device.type != "meta":
                raise StateError(f"{names[0]!r} is on the meta device and has no values")
            if not torch.can_cast(value.dtype, tensor.dtype):
                raise StateError(f"{names[0]!r} is of {value.dtype} where {tensor.dtype} is wanted")
            placed = _laid_as(tensor, without_class(value).to(device=device, dtype=tensor.dtype))
            placed = placed.clone() if placed.is_inference() else placed
            if isinstance(tensor, nn.Parameter):
                placed = nn.Parameter(placed, requires_grad=tensor.requires_grad)
            for name in names:
                replace(*self.place(name), placed)
        keep_alike(self.model, list(keys(self.ir, self.modules)), [])
        return self.model

    def cast(self, dtype: torch.dtype) -> None:
        """Cast the floating-point parameters and buffers, except constants, as ``fill`` does.

        Args:
            dtype: a floating-point dtype.

        Raises:
            StateError: a tensor consists of parts, whose numbers have no other dtype.
        """
        tensors = {key: tensor for key, tensor, _ in self.listed}
        for names in names_of(tensors).values():
            tensor = tensors[names[0]]
            packed = self.packed.get(id(tensor))
            if packed is not None:
                raise StateError(
                    f"{names[0]!r} is a {packed.kind}, whose numbers have no other dtype; load the "
                    "model without a dtype"
                )
            if tensor.is_floating_point() and not any(
                _is_kept(*self.place(name), dtype) for name in names
            ):
                # The tensor stays the same object, so that ties and ``listed`` keep it.
                tensor.data = tensor.data.to(dtype)

    def place(self, key: str) -> tuple[nn.Module, str]:
        """Return the module that has the tensor of a key, and the name of the tensor there."""
        return place_of(self.model, key)

    def _repack(
        self,
        names: Sequence[str],
        packed: Packed,
        given: Mapping[str, torch.Tensor],
        device: torch.device,
    ) -> None:
        """Replace a tensor that consists of parts by one of the given parts."""
        parts = {}
        for part, like in packed.parts.items():
            each = without_class(given_part(given, names, part, like.dtype))
            parts[part] = _laid_as(like, each.to(device))
        try:
            made = self.kinds.unflatten(packed.kind, parts, packed.data)
        except BuildError as error:
            raise BuildError(f"{names[0]!r}: {error}") from error.__cause__
        put(self.model, names, made)


def _is_kept(owner: nn.Module, name: str, dtype: torch.dtype) -> bool:
    """Return whether a tensor keeps its dtype in a cast."""
    if not isinstance(owner, Holder):
        return False
    own = owner._unnarrowed.get(name)
    return name in owner._uncast or (own is not None and dtype.itemsize < own.itemsize)


def _laid_as(like: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor with the strides of another one."""
    if like.stride() == tensor.stride() or not tensor.numel():
        return tensor
    laid = torch.empty_strided(like.shape, like.stride(), dtype=tensor.dtype, device=tensor.device)
    return laid.copy_(tensor)
