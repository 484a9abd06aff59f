"""Internal functions of torch, with checks of their arguments.

The kernels of torch trust these arguments. Without a check, a file could make them read or write
out of bounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence


def packed_sequence(
    data: torch.Tensor,
    batch_sizes: torch.Tensor,
    sorted_indices: torch.Tensor | None = None,
    unsorted_indices: torch.Tensor | None = None,
) -> PackedSequence:
    """Return a :class:`torch.nn.utils.rnn.PackedSequence` of checked parts.

    Args:
        data: the steps of all sequences, shape (sum of the lengths, …).
        batch_sizes: the number of sequences that have each step, shape (longest length,).
        sorted_indices: the indices that sort the sequences by length, shape (sequences,).
        unsorted_indices: the indices that restore the order, shape (sequences,).

    Raises:
        ValueError: ``batch_sizes`` does not fit ``data``.
    """
    _check(data, batch_sizes)
    return PackedSequence(data, batch_sizes, sorted_indices, unsorted_indices)


def pad_packed_sequence(
    data: torch.Tensor,
    batch_sizes: torch.Tensor,
    batch_first: bool,
    padding_value: float,
    total_length: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return padded sequences and their lengths, as ``torch._pad_packed_sequence`` does.

    Args:
        data: the steps of all sequences, shape (sum of the lengths, …).
        batch_sizes: the number of sequences that have each step, shape (longest length,).
        batch_first: True for the shape (sequences, steps, …), False for (steps, sequences, …).
        padding_value: the number to put after the end of a sequence.
        total_length: the number of steps in the result; -1: the longest length.

    Returns:
        The padded sequences, and the length of each, shape (sequences,).

    Raises:
        ValueError: ``batch_sizes`` does not fit ``data``.
    """
    _check(data, batch_sizes)
    padded: tuple[torch.Tensor, torch.Tensor] = torch._pad_packed_sequence(
        data, batch_sizes, batch_first, padding_value, total_length
    )
    return padded


def weight_norm(v: torch.Tensor, g: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """Return the weight with a direction and a norm, as ``torch._weight_norm`` does.

    Args:
        v: the direction.
        g: the norms. It has as many axes as ``v``, all of size 1 except ``dim``.
        dim: the axis of ``v`` whose indices each have a norm; -1: the whole of ``v`` has one norm.

    Returns:
        A tensor of the shape of ``v``.

    Raises:
        ValueError: shape or dtype of ``g`` does not fit ``v``.
    """
    along = dim % v.dim() if v.dim() else 0
    wanted = [size if axis == along else 1 for axis, size in enumerate(v.shape)]
    fits = dim == -1 or list(g.shape) == wanted
    if not fits or v.dtype is not g.dtype or not v.is_floating_point():
        raise ValueError(
            f"weights of {v.dtype} and shape {tuple(v.shape)} have no norms of {g.dtype} and "
            f"shape {tuple(g.shape)} along axis {dim}; give shape {tuple(wanted)}"
        )
    return torch._weight_norm(v, g, dim)


def coo_to_csr(indices: torch.Tensor, size: int, *, out_int32: bool = False) -> torch.Tensor:
    """Return where each row begins, as ``torch._convert_indices_from_coo_to_csr`` does.

    Args:
        indices: the row of each element, shape (elements,).
        size: the number of rows.
        out_int32: True for a result of int32, False for int64.

    Returns:
        The number of elements in the rows before each row, and in all rows, shape (size + 1,).

    Raises:
        ValueError: an index is not the number of a row.
    """
    if not indices.is_meta and indices.numel():
        first, last = torch.stack(indices.aminmax()).tolist()
        if first < 0 or last >= size:
            raise ValueError(f"the indices are {first} to {last}; give indices of {size} rows")
    return torch._convert_indices_from_coo_to_csr(indices, size, out_int32=out_int32)


def sparse(constructor: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return a constructor of sparse tensors whose indices torch checks.

    Args:
        constructor: a function of torch, such as ``torch.sparse_coo_tensor``.
    """

    def made(*args: Any, **kwargs: Any) -> torch.Tensor:
        has_numbers = not any(isinstance(each, torch.Tensor) and each.is_meta for each in args)
        return constructor(*args, **{**kwargs, "check_invariants": has_numbers})

    return made


def _check(data: torch.Tensor, batch_sizes: torch.Tensor) -> None:
    if data.is_meta or batch_sizes.is_meta:
        return  # a kernel on meta reads no memory
    is_of_sizes = batch_sizes.dtype is torch.int64 and batch_sizes.device.type == "cpu"
    if not is_of_sizes or batch_sizes.dim() != 1 or not data.dim():
        raise ValueError(
            f"the batch sizes of a packed sequence are {batch_sizes.dtype} of shape "
            f"{tuple(batch_sizes.shape)} on {batch_sizes.device}; give int64 of one axis on the CPU"
        )
    sizes = batch_sizes.tolist()
    is_falling = all(one >= other for one, other in itertools.pairwise(sizes))
    if not sizes or sizes[-1] < 1 or not is_falling or sum(sizes) != len(data):
        raise ValueError(
            f"the batch sizes of a packed sequence do not fall from step to step to 1 or more, or "
            f"are not {len(data)} in sum; give those of its {len(data)} steps"
        )
