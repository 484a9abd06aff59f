"""Views that are told by the memory of a tensor, and not by its numbers."""

from __future__ import annotations

import math
from typing import Any

import torch

from layergraph.errors import ShapeError
from layergraph_onnx.call import INT64, Call
from layergraph_onnx.table import TABLE
from layergraph_shapes import TensorMeta


@TABLE.functions("as_strided")
def lower_as_strided(call: Call) -> Any:
    """Take the numbers that lie at places in the memory of a tensor."""
    # A size may be a tensor; the description of the result has it as a number.
    sizes: Any = call.out.shape
    call.arg(1, "size")
    steps, start = call.arg(2, "stride"), call.arg(3, "storage_offset")
    meta = call.meta()
    numbers = [*sizes, *steps, *(meta.shape if isinstance(meta, TensorMeta) else ["?"])]
    if start or meta.stride is None or not all(type(each) is int for each in numbers):
        raise ShapeError(
            "as_strided depends on how its input lies in memory, which is not known here; let the "
            "model use unfold or indices, or give sizes that are numbers"
        )
    last = sum((size - 1) * step for size, step in zip(meta.shape, meta.stride, strict=True))
    memory = torch.full((max(last, -1) + 1,), -1, dtype=INT64)
    places = torch.arange(math.prod(meta.shape)).view(meta.shape)
    if memory.numel():
        memory.as_strided(meta.shape, meta.stride).copy_(places)
    reach = sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    is_empty = 0 in sizes
    if not is_empty and reach >= memory.numel():
        raise ShapeError("as_strided reads memory behind its input, which a file does not have")
    wanted = torch.zeros(*sizes) if is_empty else memory.as_strided(sizes, steps)
    if (wanted < 0).any():
        raise ShapeError("as_strided reads memory between the numbers of its input")
    flat = call.op("Reshape", call.x, call.ints([-1]))
    return call.op("Gather", flat, call.backend.constant(wanted, INT64), axis=0)


@TABLE.functions("as_strided_scatter")
def lower_as_strided_scatter(call: Call) -> Any:
    """Refuse it: it puts numbers at places in the memory of a tensor."""
    raise ShapeError(f"{call.step.kind} depends on how its input lies in memory; use indices")
