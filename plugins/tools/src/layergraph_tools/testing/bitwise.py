"""Comparison of values bit for bit, also in nested containers."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from layergraph.tensors.memory import same_bytes

_TENSOR_FEATURES = ("dtype", "layout", "device", "shape")


def bitwise_equal(one: object, other: object, *, strides: bool = True) -> bool:
    """Return whether two values are the same bit for bit: see :func:`bitwise_difference`.

    Example::

        >>> import torch
        >>> from layergraph.testing import bitwise_equal
        >>> bitwise_equal([torch.zeros(2)], [torch.zeros(2)])
        True
        >>> bitwise_equal(torch.tensor(0.0), torch.tensor(-0.0))
        False
    """
    return not bitwise_difference(one, other, strides=strides)


def bitwise_difference(
    one: object, other: object, *, strides: bool = True, name: str = "value"
) -> str:
    """Describe the first place where two values differ; the text is empty if they are the same.

    Tensors are the same if they have one class, dtype, layout, device, shape and strides, and
    equal bits: -0.0 is not 0.0, inf is not the largest number, and a nan equals a nan of the same
    bits only. Containers are the same if they have one class, the same keys or fields in the same
    order, and the same items; two classes of named tuples may share a name. Other values are
    compared by class and ``==``.

    Args:
        one: the first value.
        other: the second value.
        strides: whether to compare the strides of tensors. Saving or moving a tensor, or making it
            contiguous, may change them.
        name: the name of the value in the text.

    Raises:
        TypeError: a tensor has a layout whose bits we cannot read.

    Example::

        >>> import torch
        >>> from layergraph.testing import bitwise_difference
        >>> bitwise_difference({"x": torch.zeros(2)}, {"x": torch.ones(2)})
        "value['x']: 2 of 2 numbers differ"
    """
    return next(_differences(one, other, strides, name), "")


def _differences(one: Any, other: Any, strides: bool, name: str) -> Iterator[str]:
    if _kind(one) != _kind(other):
        yield f"{name}: {_kind(one)} became {_kind(other)}"
    elif isinstance(one, torch.Tensor):
        yield from _tensor_differences(one, other, strides, name)
    elif (parts := _parts(one)) is not None:
        others = _parts(other) or {}
        if list(parts) != list(others):
            yield f"{name}: {list(parts)} became {list(others)}"
        for part, each in parts.items():
            yield from _differences(each, others.get(part), strides, name + part)
    elif one is not other and _comparable(one) != _comparable(other):
        yield f"{name}: {one!r:.100} became {other!r:.100}"


def _kind(value: object) -> object:
    """Return the class, or the name of a named tuple: rebuilt models make their own classes."""
    is_named = isinstance(value, tuple) and hasattr(value, "_fields")
    return f"named tuple {type(value).__name__}" if is_named else type(value)


def _comparable(value: Any) -> object:
    """Return a form that ``==`` compares bit for bit: the bytes of a number."""
    if isinstance(value, float | complex):
        return struct.pack("dd", value.real, value.imag)
    if hasattr(value, "__array_interface__"):  # a numpy array; we do not import numpy to check
        return value.dtype, value.shape, value.tobytes()
    return value


def _parts(value: Any) -> dict[str, object] | None:
    """Return the parts of a container, by key, index or field; None for other values."""
    if isinstance(value, Mapping):
        return {f"[{key!r}]": each for key, each in value.items()}
    if isinstance(value, tuple | list):
        names = getattr(value, "_fields", None)
        return {
            f".{names[index]}" if names else f"[{index}]": each for index, each in enumerate(value)
        }
    if isinstance(value, slice):
        return {f".{each}": getattr(value, each) for each in ("start", "stop", "step")}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f".{each.name}": getattr(value, each.name) for each in dataclasses.fields(value)}
    return None


def _tensor_differences(
    one: torch.Tensor, other: torch.Tensor, strides: bool, name: str
) -> Iterator[str]:
    with torch._C.DisableTorchFunction():  # no mode or subclass shall change what we read
        for feature in _TENSOR_FEATURES:
            was, now = getattr(one, feature), getattr(other, feature)
            if was != now:
                yield f"{name}: its {feature} was {was}, and is {now}"
                return
        if one.layout is not torch.strided or one.is_quantized:
            for part, (was, now) in _stored(one, other).items():
                yield from _differences(was, now, False, f"{name}.{part}")
            return
        if strides and one.stride() != other.stride():
            yield f"{name}: its strides were {one.stride()}, and are {other.stride()}"
        if one.is_meta:
            return
        dense = [each.detach().resolve_conj().resolve_neg().contiguous() for each in (one, other)]
        if not same_bytes(dense[0], dense[1]):
            was, now = (
                each.as_strided((each.numel(), 1), (1, 1)).view(torch.uint8) for each in dense
            )
            count = int((was != now).any(dim=1).sum())
            yield f"{name}: {count} of {one.numel()} numbers differ"


def _stored(one: torch.Tensor, other: torch.Tensor) -> dict[str, tuple[object, object]]:
    """Return the dense tensors that hold the numbers of two tensors of one layout, by name."""
    if one.is_quantized:
        if one.qscheme() is not torch.per_tensor_affine:
            raise TypeError(f"cannot compare the bits of tensors quantized by {one.qscheme()}")
        names = ["int_repr", "q_scale", "q_zero_point"]
    elif one.layout is torch.sparse_coo:
        one, other = one.coalesce(), other.coalesce()
        names = ["indices", "values"]
    elif one.layout in (torch.sparse_csr, torch.sparse_bsr):
        names = ["crow_indices", "col_indices", "values"]
    elif one.layout in (torch.sparse_csc, torch.sparse_bsc):
        names = ["ccol_indices", "row_indices", "values"]
    else:
        raise TypeError(f"cannot compare the bits of tensors of layout {one.layout}")
    return {each: (getattr(one, each)(), getattr(other, each)()) for each in names}
