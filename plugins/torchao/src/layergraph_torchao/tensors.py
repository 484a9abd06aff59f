"""Take the quantized tensors of torchao apart, and make them of parts."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from layergraph.errors import BuildError

from . import HOMES
from .values import restored, said

Parts = dict[str, torch.Tensor]


def flatten(tensor: Any) -> tuple[Parts, dict[str, Any]]:
    """Return the parts and the plain values of a quantized tensor."""
    names, values = tensor.__tensor_flatten__()
    parts = {name: getattr(tensor, name) for name in names}
    return parts, {name: said(value) for name, value in values.items()}


def unflatten(name: str, parts: Parts, values: Mapping[str, Any]) -> torch.Tensor:
    """Return the quantized tensor of a class.

    Args:
        name: the name of the class, from :data:`HOMES`.
        parts: its plain tensors, by name.
        values: its plain values, by name.

    Raises:
        BuildError: no torchao with this class is installed.
        ValueError: the parts or values do not fit the class.
    """
    try:
        cls = getattr(importlib.import_module(HOMES[name]), name)
    except (ImportError, AttributeError):
        raise BuildError(
            f"no torchao with a {name} is installed here; pip install a torchao that has it"
        ) from None
    made = {key: restored(value) for key, value in values.items()}
    known = {
        *cls.tensor_attribute_names,
        *getattr(cls, "optional_tensor_attribute_names", ()),
    }
    _expect(made.keys() == known, f"the values are {sorted(made)}, not {sorted(known)}")
    _CHECKS[name](parts, made)
    if "shape" in made:
        made["shape"] = torch.Size(made["shape"])
    restored_tensor: torch.Tensor = cls.__tensor_unflatten__(parts, made, None, None)
    return restored_tensor


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def _expect_part(
    parts: Parts, name: str, dtypes: Sequence[torch.dtype], shape: Sequence[int] | None = None
) -> torch.Tensor:
    part = parts.get(name)
    if part is None:
        raise ValueError(f"the part {name!r} is missing")
    listed = " or ".join(map(str, dtypes))
    _expect(part.dtype in dtypes, f"the part {name!r} is of {part.dtype}, not of {listed}")
    if shape is not None:
        found = tuple(part.shape)
        _expect(found == tuple(shape), f"the part {name!r} is of shape {found}, not {tuple(shape)}")
    return part


def _blocks(qdata: torch.Tensor, values: Mapping[str, Any]) -> list[int]:
    """Return the shape of scales: the number of blocks along each axis."""
    block_size, dtype = values["block_size"], values["dtype"]
    _expect(dtype in _FLOATS, f"the dtype is {dtype!r}, no floating dtype")
    _expect(
        isinstance(block_size, list | tuple)
        and len(block_size) == qdata.ndim
        and all(type(each) is int and each > 0 for each in block_size),
        f"the block size {block_size!r} does not fit the shape {tuple(qdata.shape)}",
    )
    sizes = [*zip(qdata.shape, block_size, strict=True)]
    _expect(
        all(size % block == 0 for size, block in sizes),
        f"blocks of {block_size!r} do not divide the shape {tuple(qdata.shape)}",
    )
    return [size // block for size, block in sizes]


def _expect_names(parts: Parts, names: str) -> None:
    unknown = sorted(parts.keys() - set(names.split()))
    _expect(not unknown, f"there is no part {', '.join(unknown)} in such a tensor")


def _check_int8(parts: Parts, values: Mapping[str, Any]) -> None:
    _expect_names(
        parts, "qdata scale zero_point act_quant_scale act_quant_zero_point act_pre_scale"
    )
    qdata = _expect_part(parts, "qdata", [torch.int8])
    shape = _blocks(qdata, values)
    # A single scale for the whole tensor may have any number of axes.
    scale = _expect_part(parts, "scale", _FLOATS)
    is_one = math.prod(shape) == scale.numel() == 1
    _expect(is_one or list(scale.shape) == shape, f"the scales are of {tuple(scale.shape)}")
    if "zero_point" in parts:
        _expect_part(parts, "zero_point", [torch.int8, *_FLOATS], scale.shape)
    for name in ("act_quant_scale", "act_pre_scale", "act_quant_zero_point"):
        if name in parts:
            part = _expect_part(parts, name, [torch.int8, torch.int32, *_FLOATS])
            fits = part.numel() in (1, qdata.shape[-1]) and part.ndim <= qdata.ndim
            _expect(fits, f"the part {name!r} is of shape {tuple(part.shape)}")


def _check_float8(parts: Parts, values: Mapping[str, Any]) -> None:
    _expect_names(parts, "qdata scale")
    qdata = _expect_part(parts, "qdata", [torch.float8_e4m3fn, torch.float8_e5m2])
    _expect_part(parts, "scale", _FLOATS, _blocks(qdata, values))


def _check_intx(parts: Parts, values: Mapping[str, Any]) -> None:
    _expect_names(parts, "qdata scale zero_point")
    qdata = _expect_part(parts, "qdata", [torch.int8])
    shape = _blocks(qdata, values)
    _expect_part(parts, "scale", _FLOATS, shape)
    _expect_part(parts, "zero_point", [torch.int8, *_FLOATS], shape)


def _check_int4(parts: Parts, values: Mapping[str, Any]) -> None:
    # Tensors with dynamic activation need instructions that few machines have.
    _expect(values["act_mapping_type"] is None, "it has dynamic activation")
    _expect_names(parts, "qdata scale_and_zero act_pre_scale")
    shape, block_size = values["shape"], values["block_size"]
    for said_of in (shape, block_size):
        _expect(
            isinstance(said_of, list | tuple)
            and len(said_of) == 2
            and all(type(each) is int and each > 0 for each in said_of),
            f"{said_of!r} is not a pair of sizes",
        )
    (rows, columns), (one, group) = shape, block_size
    fits = one == 1 and group in (32, 64, 128) and columns % group == 0
    _expect(fits, f"blocks of {block_size!r} do not divide the shape {shape!r}")
    _expect_part(parts, "qdata", [torch.uint8], [rows, columns // 2])
    _expect_part(parts, "scale_and_zero", _FLOATS, [columns // group, rows, 2])
    if "act_pre_scale" in parts:
        part = _expect_part(parts, "act_pre_scale", _FLOATS)
        fits = part.numel() in (1, columns) and part.ndim <= 2
        _expect(fits, f"the part 'act_pre_scale' is of shape {tuple(part.shape)}")


_CHECKS: dict[str, Callable[[Parts, Mapping[str, Any]], None]] = {
    "Float8Tensor": _check_float8,
    "Int4OpaqueTensor": _check_int4,
    "Int8Tensor": _check_int8,
    "IntxUnpackedToInt8Tensor": _check_intx,
}
