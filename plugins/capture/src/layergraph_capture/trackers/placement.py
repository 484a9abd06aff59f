"""The place of a tensor in memory before a run."""

from __future__ import annotations

import contextlib

import torch

from layergraph.tensors.memory import lie_alike


class Placement:
    """The storage, shape and autograd flags of a plain tensor, to restore them after a run.

    Args:
        tensor: the tensor. Its class and function modes see the reads, which saves time: a capture
            makes a placement of each tensor of a model.
    """

    __slots__ = ("_alias", "_is_leaf", "_requires_grad", "_size", "_storage")

    def __init__(self, tensor: torch.Tensor) -> None:
        self._alias = tensor.detach()
        self._storage = self._alias.untyped_storage()
        self._size = self._storage.nbytes()
        self._is_leaf = tensor.is_leaf
        self._requires_grad = tensor.requires_grad

    def put_back(self, tensor: torch.Tensor) -> bool:
        """Restore a tensor, and return whether its memory had changed."""
        if self._is_leaf and not tensor.is_leaf:
            with contextlib.suppress(RuntimeError):  # torch cannot detach a view in place
                tensor.detach_()
        if tensor.requires_grad is not self._requires_grad and tensor.is_leaf:
            tensor.requires_grad_(self._requires_grad)
        is_resized = self._storage.nbytes() != self._size
        if is_resized:
            self._storage.resize_(self._size)
        if tensor.dtype is self._alias.dtype and _is_set_to(tensor, self._alias):
            return is_resized
        tensor.data = self._alias
        return True


def _is_set_to(one: torch.Tensor, other: torch.Tensor) -> bool:
    # is_set_to raises on the meta device, and compares copies for lazy conj and neg.
    is_usual = not (other.is_meta or other.is_conj() or other.is_neg())
    return one.is_set_to(other) if is_usual else lie_alike(one, other)
