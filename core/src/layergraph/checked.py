"""Steps of torch's layers with the checks that torch leaves to those who call them.

Their kernels read and write by what they are given, without a look, so that a file could lead them
out of bounds. A packed sequence says in ``batch_sizes`` how many sequences go on at each step.
"""

from __future__ import annotations

import itertools

import torch
from torch.nn.utils.rnn import PackedSequence


def packed_sequence(
    data: torch.Tensor,
    batch_sizes: torch.Tensor,
    sorted_indices: torch.Tensor | None = None,
    unsorted_indices: torch.Tensor | None = None,
) -> PackedSequence:
    """A :class:`torch.nn.utils.rnn.PackedSequence` of these parts.

    Args:
        data: the steps of all sequences, shape (sum of the lengths, …).
        batch_sizes: how many sequences have a step there, shape (longest length,).
        sorted_indices: the order of the sequences, shape (sequences,).
        unsorted_indices: the way back from it, shape (sequences,).

    Raises:
        ValueError: the sizes are none of such data.
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
    """The padded sequences and their lengths, as ``torch._pad_packed_sequence`` gives them.

    Args:
        data: the steps of all sequences, shape (sum of the lengths, …).
        batch_sizes: how many sequences have a step there, shape (longest length,).
        batch_first: whether the sequences are the first axis of the result, and steps the second.
        padding_value: the number behind the end of a sequence.
        total_length: how many steps the result has; -1 for those of the longest sequence.

    Raises:
        ValueError: the sizes are none of such data.
    """
    _check(data, batch_sizes)
    padded: tuple[torch.Tensor, torch.Tensor] = torch._pad_packed_sequence(
        data, batch_sizes, batch_first, padding_value, total_length
    )
    return padded


def weight_norm(v: torch.Tensor, g: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """A weight by its direction and its lengths, as ``torch._weight_norm`` gives it.

    Args:
        v: the direction.
        g: the lengths, of as many axes as ``v``, each of size 1 but for ``dim``.
        dim: the axis of ``v`` along which there is a length for each index; -1 for one length.

    Raises:
        ValueError: the lengths are none of such a direction.
    """
    along = dim % v.dim() if v.dim() else 0
    wanted = [size if axis == along else 1 for axis, size in enumerate(v.shape)]
    fits = dim == -1 or list(g.shape) == wanted
    if not fits or v.dtype is not g.dtype or not v.is_floating_point():
        raise ValueError(
            f"weights of {v.dtype} and shape {tuple(v.shape)} have no lengths of {g.dtype} and "
            f"shape {tuple(g.shape)} along axis {dim}; give shape {tuple(wanted)}"
        )
    return torch._weight_norm(v, g, dim)


def _check(data: torch.Tensor, batch_sizes: torch.Tensor) -> None:
    if data.is_meta or batch_sizes.is_meta:
        return  # There is no memory to be read.
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
