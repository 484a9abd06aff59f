"""The arguments of a walk: tensors without memory in the place of what the caller gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from layergraph.errors import ArgumentError, brief
from layergraph_shapes.described import TensorMeta
from layergraph_shapes.sizes import Sizes, check_name

_FORM = "give the arguments as a tuple, such as (x,), or (TensorMeta((2, 3)),)"


class Arguments:
    """Turns what the caller gives into the arguments of a call.

    Args:
        sizes: the symbolic sizes.
        fixed: the numbers that names stand for instead; None: names stand for symbolic sizes.
    """

    def __init__(self, sizes: Sizes, fixed: Mapping[str, int] | None = None) -> None:
        self._sizes = sizes
        self._fixed = fixed

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> tuple[Any, Any]:
        """Return the positional arguments, and those by name.

        Call it under the fake mode of the walk.

        Raises:
            ArgumentError: they are no arguments of a call.
        """
        if isinstance(args, torch.Tensor | TensorMeta | str) or not isinstance(args, Sequence):
            raise ArgumentError(f"the arguments of the call are {brief(args)}; {_FORM}")
        if not isinstance(kwargs, Mapping | None):
            raise ArgumentError(f"the arguments by name are {brief(kwargs)}; give a dict")
        by_name = kwargs or {}
        return tuple(map(self._top, args)), {key: self._top(each) for key, each in by_name.items()}

    def _top(self, value: Any) -> Any:
        """Return an argument; a tuple of sizes is the shape of a tensor."""
        if type(value) in (tuple, torch.Size) and value and all(map(_is_size, value)):
            return self._tensor(TensorMeta(tuple(value)))
        return self._inside(value)

    def _inside(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return torch.empty(value.shape, dtype=value.dtype)
        if isinstance(value, TensorMeta):
            return self._tensor(value)
        if isinstance(value, dict):
            return {key: self._inside(each) for key, each in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self._inside, value))
        if type(value) in (tuple, list):
            return type(value)(map(self._inside, value))
        return value

    def _tensor(self, meta: TensorMeta) -> torch.Tensor:
        shape = [self._size(each) for each in meta.shape]
        try:
            return torch.empty(shape, dtype=meta.dtype)
        except (RuntimeError, TypeError) as error:
            raise ArgumentError(f"there is no tensor {meta}; correct it") from error

    def _size(self, size: Any) -> Any:
        if not isinstance(size, str):
            return size
        check_name(size)
        if self._fixed is None:
            return self._sizes.named(size)
        if size not in self._fixed:
            raise ArgumentError(
                f"a cost is a number: say how large {size!r} is, as in sizes={{{size!r}: 8}}"
            )
        return self._fixed[size]


def _is_size(value: object) -> bool:
    return type(value) in (int, str)
