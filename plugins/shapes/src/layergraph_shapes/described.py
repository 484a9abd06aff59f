"""Descriptions of values: tensors by shape and dtype, inside their containers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from layergraph.ir import Record
from layergraph.ir.text import value_text
from layergraph.literals import output_record
from layergraph.outputs import Output

Size: TypeAlias = int | str
"""A size: a number, or an expression of the names of sizes, such as ``"2*batch"``."""


@dataclass(frozen=True, slots=True)
class TensorMeta:
    """The shape and dtype of a tensor.

    It describes a value in the result of :func:`layergraph.shapes`, and stands for an input in its
    arguments.

    Attributes:
        shape: the sizes: numbers, or expressions of the names that the caller gave to sizes. A size
            that depends on numbers in a tensor is ``"u0"``, ``"u1"`` and so on.
        dtype: the dtype.
        stride: the strides, in elements, of a value that a walk has computed; None if they are not
            known numbers. Two descriptions are equal whatever their strides are.

    Example:
        >>> import torch
        >>> from layergraph_shapes import TensorMeta
        >>> print(TensorMeta(("batch", 3), torch.float32))
        float32[batch, 3]
    """

    shape: tuple[Size, ...]
    dtype: torch.dtype = torch.float32
    stride: tuple[int, ...] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.shape))
        return f"{str(self.dtype).removeprefix('torch.')}[{sizes}]"


@dataclass(frozen=True, slots=True)
class Either:
    """A value with different descriptions on the two ways of a decision.

    Attributes:
        decision: the name of the decision, in :attr:`layergraph_shapes.Shapes.decisions`.
        if_true: the description if the decision is True.
        if_false: the description if it is False.
    """

    decision: str
    if_true: Any
    if_false: Any

    def __str__(self) -> str:
        return f"{text(self.if_true)} if {self.decision} else {text(self.if_false)}"


def text(value: Any) -> str:
    """Return the text of a description: ``(float32[2, 3], None)``."""
    return value_text(value, _said)


def _said(leaf: Any) -> str | None:
    if type(leaf) is Record:
        return text(leaf)
    return str(leaf) if isinstance(leaf, TensorMeta | Either) else None


def described(value: Any, size: Callable[[Any], Any]) -> Any:
    """Return the description of a value that a walk has computed.

    Args:
        value: the value.
        size: returns the description of a number, which may be symbolic.
    """
    if isinstance(value, torch.Tensor):
        shape = tuple([size(each) for each in value.shape])
        return TensorMeta(shape, value.dtype, _stride(value))
    if isinstance(value, Output):
        return output_record(value, {key: described(each, size) for key, each in dict.items(value)})
    if isinstance(value, dict):
        return {key: described(each, size) for key, each in value.items()}
    if isinstance(value, tuple | list):
        inside = [described(each, size) for each in value]
        names = getattr(value, "_fields", None)
        if names is not None:
            return Record(type(value).__name__, dict(zip(names, inside, strict=True)))
        # Classes of torch, such as torch.Size and torch.return_types, are tuples too.
        return tuple(inside) if isinstance(value, tuple) else inside
    if isinstance(value, slice):
        return slice(*[described(each, size) for each in (value.start, value.stop, value.step)])
    number = size(value)
    return number if isinstance(number, _PLAIN) else f"<{type(number).__name__}>"


def _stride(tensor: torch.Tensor) -> tuple[int, ...] | None:
    if tensor.layout is not torch.strided:
        return None
    stride = tensor.stride()
    return stride if all(type(each) is int for each in stride) else None


_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, type(...), Either),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return the tensors in nested containers, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, tuple | list):
        return []
    return [tensor for each in value for tensor in tensors_in(each)]
