"""Functions that make or fill tensors."""

from __future__ import annotations

from typing import Any

import torch

import layergraph as lg
from layergraph_onnx.call import Call, is_value
from layergraph_onnx.table import TABLE
from layergraph_onnx.target import Value


@TABLE.functions("full zeros ones empty new_full new_zeros new_ones new_empty")
def lower_full(call: Call) -> Any:
    """Make a tensor of one number."""
    name = call.step.kind.rpartition(".")[2]
    number: Any = 1 if name.endswith("ones") else 0
    first = 1 if name.startswith("new") else 0
    if name.endswith("full"):
        number = call.arg(first + 1, "fill_value")
        sizes = list(call.arg(first, "size"))
    else:
        sizes = call.dims(first, "size")
    return _filled(call, number, call.sizes(sizes) if sizes else call.ints([]))


@TABLE.functions("full_like zeros_like ones_like empty_like")
def lower_full_like(call: Call) -> Any:
    """Make a tensor of one number, with the shape of another."""
    name = call.step.kind.rpartition(".")[2]
    number = call.arg(1, "fill_value") if name.startswith("full") else int(name.startswith("ones"))
    shape = call.shape()
    is_static = all(isinstance(each, int) for each in shape)
    return _filled(call, number, call.ints(shape) if is_static else call.op("Shape", call.x))  # type: ignore[arg-type]


@TABLE.functions("fill zero")
def lower_fill(call: Call) -> Any:
    """Fill with one number."""
    number = 0 if call.step.kind.rstrip("_").endswith("zero") else call.arg(1, "value")
    return _filled(call, number, call.op("Shape", call.x))


def _filled(call: Call, number: Any, shape: Value) -> Any:
    dtype = call.out_dtype
    if is_value(number):
        return call.op("Expand", call.value(number, dtype), shape)
    return call.op("Expand", call.backend.constant(number, dtype), shape)


@TABLE.functions("arange")
def lower_arange(call: Call) -> Any:
    """Return a range of numbers."""
    given = list(call.step.args)
    start, stop, step = 0, call.arg(0, "end"), 1
    if len(given) > 1:
        start, stop, step = (*given, 1)[:3]
    start, stop = call.step.kwargs.get("start", start), call.step.kwargs.get("end", stop)
    step = call.step.kwargs.get("step", step)
    dtype = call.out_dtype
    if not any(map(is_value, (start, stop, step))):
        return call.backend.constant(torch.arange(start, stop, step, dtype=dtype), dtype)
    ends = [call.value(each, dtype) for each in (start, stop, step)]
    return call.op("Range", *ends)


@TABLE.functions("tensor scalar_tensor as_tensor")
def lower_tensor(call: Call) -> Any:
    """Make a tensor of constant numbers."""
    data = call.arg(0, "data", call.step.kwargs.get("s"))
    return (
        call.value(data, call.out_dtype)
        if not isinstance(data, list) or not any(map(is_value, data))
        else lg.decline("its numbers are computed")
    )


@TABLE.functions("copy")
def lower_copy(call: Call) -> Any:
    """Copy the numbers of another tensor."""
    source = call.operand(1, call.out_dtype, "src")
    if call.shape(1, "src") == call.out.shape:
        return source
    return call.op("Expand", source, call.op("Shape", call.x))
