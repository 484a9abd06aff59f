"""A model on the meta device, and the tensors that take the places of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from layergraph.errors import BuildError, StateError
from layergraph.ir import Ir
from layergraph.ir2torch.composite import Holder, descend
from layergraph.ir2torch.load import Key, fitting, keep_alike, keys, names_of
from layergraph.state import replace
from layergraph.tensors import without_class


@dataclass(frozen=True, slots=True)
class MetaModel:
    """A model without memory for its tensors.

    Attributes:
        ir: what was built.
        model: the model.
        modules: by implementation, the modules of the model.
        listed: its tensors: see :func:`layergraph.ir2torch.load.keys`.
        values: those of them that no state dict needs to have, with what is to be in them.
    """

    ir: Ir
    model: nn.Module
    modules: Mapping[str, nn.Module]
    listed: Sequence[Key]
    values: Sequence[tuple[torch.Tensor, torch.Tensor]]

    def fill(
        self,
        state_dict: Mapping[str, torch.Tensor],
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> nn.Module:
        """Put tensors in their places, once.

        Only those are copied that are to be elsewhere, of another dtype, or to lie otherwise in
        memory.

        Args:
            state_dict: the weights. A tensor with several keys needs only one of them.
            device: where the parameters and buffers are to be.
            dtype: what those of them are to be that are floating, but for constants; None: what the
                IR says.

        Returns:
            The model.

        Raises:
            StateError: the state dict does not fit.
            BuildError: something has a value neither here nor there.
        """
        fitting(self.listed, state_dict)
        said = {id(tensor): value for tensor, value in self.values}
        tensors = {key: tensor for key, tensor, _ in self.listed}
        for names in names_of(tensors).values():
            tensor = tensors[names[0]]
            # As where a state dict is copied, the last of several names counts.
            given = [state_dict[name] for name in names if name in state_dict]
            value = given[-1] if given else said.get(id(tensor))
            if value is None:
                raise BuildError(
                    f"{names[0]!r} is in no state dict, and the IR does not say its value; say it"
                )
            if not torch.can_cast(value.dtype, tensor.dtype):
                raise StateError(f"{names[0]!r} is of {value.dtype} where {tensor.dtype} is wanted")
            places = [self._place(name) for name in names]
            wish = tensor.dtype
            if dtype is not None and wish.is_floating_point and not any(map(_is_uncast, places)):
                wish = dtype
            placed = _laid_as(tensor, without_class(value).to(device=device, dtype=wish))
            if isinstance(tensor, nn.Parameter):
                placed = nn.Parameter(placed, requires_grad=tensor.requires_grad)
            for owner, name in places:
                replace(owner, name, placed)
        keep_alike(self.model, list(keys(self.ir, self.modules)), [])
        return self.model

    def _place(self, key: str) -> tuple[nn.Module, str]:
        *way, last = key.split(".")
        owner = descend(self.model, way)
        return self.model if owner is None else owner, last


def _is_uncast(place: tuple[nn.Module, str]) -> bool:
    owner, name = place
    return isinstance(owner, Holder) and name in owner._uncast


def _laid_as(like: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, with its numbers in the order in memory that another has."""
    if like.stride() == tensor.stride() or not tensor.numel():
        return tensor
    laid = torch.empty_strided(like.shape, like.stride(), dtype=tensor.dtype, device=tensor.device)
    return laid.copy_(tensor)
