"""The dtypes of torch and of ONNX."""

from __future__ import annotations

import onnx_ir
import torch

from layergraph.errors import LayergraphError

_D = onnx_ir.DataType
_ONNX: dict[torch.dtype, onnx_ir.DataType] = {
    torch.float32: _D.FLOAT,
    torch.float64: _D.DOUBLE,
    torch.float16: _D.FLOAT16,
    torch.bfloat16: _D.BFLOAT16,
    torch.float8_e4m3fn: _D.FLOAT8E4M3FN,
    torch.float8_e5m2: _D.FLOAT8E5M2,
    torch.bool: _D.BOOL,
    torch.uint8: _D.UINT8,
    torch.uint16: _D.UINT16,
    torch.uint32: _D.UINT32,
    torch.uint64: _D.UINT64,
    torch.int8: _D.INT8,
    torch.int16: _D.INT16,
    torch.int32: _D.INT32,
    torch.int64: _D.INT64,
}
_TORCH = {ours: theirs for theirs, ours in _ONNX.items()}


def to_onnx(dtype: torch.dtype) -> onnx_ir.DataType:
    """Return the dtype of ONNX for one of torch.

    Raises:
        LayergraphError: ONNX has none.
    """
    if dtype not in _ONNX:
        raise LayergraphError(f"the operators of ONNX take no {dtype}; cast the tensor")
    return _ONNX[dtype]


def torch_dtype(code: int) -> torch.dtype | None:
    """Return the dtype of torch for a number of ONNX; None if there is none."""
    try:
        return _TORCH.get(onnx_ir.DataType(code))
    except ValueError:
        return None
