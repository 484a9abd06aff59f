"""The peak memory of activations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from layergraph_shapes.alternatives import Branch
from layergraph_shapes.described import tensors_in


class Memory:
    """Sums the bytes of the storages of live values. Views share a storage.

    Args:
        weights: the tensors to ignore.

    Attributes:
        peak: the largest sum so far.
    """

    def __init__(self, weights: Iterable[torch.Tensor]) -> None:
        self._weights = {_storage(each)._cdata for each in weights}
        self._holders: dict[int, int] = {}
        self._bytes = 0
        self.peak = 0

    def hold(self, values: Sequence[Any]) -> None:
        """Count a reference to each value. A value may have several references."""
        for key, size in self._storages(values):
            holders = self._holders.get(key, 0)
            self._holders[key] = holders + 1
            if not holders:
                self._bytes += size
        self.peak = max(self.peak, self._bytes)

    def release(self, values: Sequence[Any]) -> None:
        """Drop one reference to each value."""
        for key, size in self._storages(values):
            self._holders[key] -= 1
            if not self._holders[key]:
                del self._holders[key]
                self._bytes -= size

    def _storages(self, values: Sequence[Any]) -> Iterable[tuple[int, int]]:
        for value in values:
            for tensor in tensors_in(_both_ways(value)):
                storage = _storage(tensor)
                size: Any = storage.nbytes()
                if storage._cdata not in self._weights and isinstance(size, int):
                    yield storage._cdata, size


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def _both_ways(value: Any) -> Any:
    """Return a value with each branch replaced by the values of both ways."""
    if type(value) is Branch:
        return _both_ways(value.if_true), _both_ways(value.if_false)
    if isinstance(value, dict):
        return [_both_ways(each) for each in dict.values(value)]
    if isinstance(value, tuple | list):
        return [_both_ways(each) for each in value]
    return value
