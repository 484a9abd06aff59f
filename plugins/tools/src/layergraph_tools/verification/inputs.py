"""The inputs of a verification: copies of the given inputs, and random ones like them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from layergraph.tensors.memory import copy_of

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Return the tensors in nested containers."""
    return [each for each in pytree.tree_leaves(value) if isinstance(each, torch.Tensor)]


def copied(inputs: Inputs) -> Inputs:
    """Return copies of inputs, which a model may change in place."""

    def one(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return copy.deepcopy(value)
        return copy_of(value)

    return pytree.tree_map(one, inputs)  # type: ignore[no-any-return]


def changed(
    inputs: Inputs, change: Callable[[torch.Tensor], torch.Tensor], *, packed: bool = True
) -> Inputs:
    """Return inputs with other tensors.

    The batch sizes of a packed sequence stay the same, because they describe its layout.

    Args:
        inputs: the inputs.
        change: returns a new tensor for each tensor.
        packed: whether to change the data of packed sequences.
    """

    def one(value: Any) -> Any:
        if isinstance(value, PackedSequence):
            return value._replace(data=change(value.data)) if packed else value
        return change(value) if isinstance(value, torch.Tensor) else value

    def is_packed(value: Any) -> bool:
        return isinstance(value, PackedSequence)

    return pytree.tree_map(one, inputs, is_leaf=is_packed)  # type: ignore[no-any-return]


def drawn(given: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Return a random tensor with the shape, dtype and device of the given one."""
    plain = given.detach().cpu()
    if not plain.numel():
        made = plain
    elif plain.is_complex():
        made = torch.view_as_complex(drawn(torch.view_as_real(plain), draw))
    elif plain.is_floating_point():
        noise = torch.randn(plain.shape, generator=draw, dtype=torch.double)
        finite = plain.double()[plain.isfinite()]
        made = noise * finite.std(correction=0) + finite.mean() if finite.numel() else plain
    elif plain.dtype is torch.bool:
        made = torch.randint(2, plain.shape, generator=draw)
    else:
        made = plain.flatten()[torch.randint(plain.numel(), plain.shape, generator=draw)]
    return made.to(given.device, given.dtype).requires_grad_(given.requires_grad)
