"""Reductions and products: sums, means, extremes, matrix products, attention."""

from __future__ import annotations

import math
from typing import Any

import torch

import layergraph as lg
from layergraph_onnx.call import INT64, Call, is_value
from layergraph_onnx.table import MAYBE, TABLE
from layergraph_onnx.target import Maybe, Value

_REDUCTIONS = {
    "sum": "ReduceSum", "mean": "ReduceMean", "amax": "ReduceMax", "amin": "ReduceMin",
    "logsumexp": "ReduceLogSumExp",
}  # fmt: skip


def _register(name: str, kind: str) -> None:
    @TABLE.functions(name)
    def lower_reduction(call: Call) -> Any:
        keep = call.arg(2, "keepdim", False)
        return _reduced(call, kind, call.arg(1, "dim"), keep)


def _reduced(call: Call, kind: str, dim: Any, keep: Any) -> Any:
    dtype = call.out_dtype
    x = call.value(call.x, dtype, call.dtype())
    axes = call.axes(dim)
    if not axes:
        return x
    return call.op(kind, x, call.ints(axes), keepdims=int(bool(keep)))


for _name, _kind in _REDUCTIONS.items():
    _register(_name, _kind)


@TABLE.functions("any all")
def lower_any(call: Call) -> Any:
    """Return whether any or all elements are True."""
    kind = "ReduceMax" if call.step.kind.endswith("any") else "ReduceMin"
    x = call.cast(call.cast(call.x, torch.bool), torch.int32)
    axes = call.axes(call.arg(1, "dim"))
    keep = int(bool(call.arg(2, "keepdim", False)))
    return call.cast(call.op(kind, x, call.ints(axes), keepdims=keep), torch.bool)


@TABLE.functions("max min")
def lower_extreme(call: Call) -> Any:
    """Return the largest or smallest number; along an axis, with its index."""
    is_max = call.step.kind.endswith("max")
    kind = "Max" if is_max else "Min"
    dim = call.arg(1, "dim")
    if dim is None:
        return call.op(f"Reduce{kind}", call.x, keepdims=0)
    if is_value(dim):
        dtype = call.out_dtype
        return call.op(kind, call.operand(0, dtype), call.operand(1, dtype, "other"))
    keep = int(bool(call.arg(2, "keepdim", False)))
    axis = call.axis(dim)
    return (
        call.op(f"Reduce{kind}", call.x, call.ints([axis]), keepdims=keep),
        call.op(f"Arg{kind}", call.x, axis=axis, keepdims=keep),
    )


@TABLE.functions("argmax argmin")
def lower_argmax(call: Call) -> Any:
    """Return the index of the largest or smallest number."""
    dim = call.arg(1, "dim")
    kind = "ArgMax" if call.step.kind.endswith("max") else "ArgMin"
    x = call.x if call.dtype() is not torch.bool else call.cast(call.x, torch.int32)
    if dim is None:
        flat = call.op("Reshape", x, call.ints([-1]))
        return call.op(kind, flat, axis=0, keepdims=0)
    keep = int(bool(call.arg(2, "keepdim", False)))
    return call.op(kind, x, axis=call.axis(dim), keepdims=keep)


@TABLE.functions("cumsum")
def lower_cumsum(call: Call) -> Any:
    """Return the cumulative sum along an axis."""
    dtype = call.out_dtype
    axis = call.backend.constant(call.axis(call.arg(1, "dim")), INT64)
    return call.op("CumSum", call.operand(0, dtype), axis)


@TABLE.functions("norm vector_norm")
def lower_norm(call: Call) -> Any:
    """Return a norm of vectors."""
    is_vector = call.step.kind.endswith("vector_norm")
    order = call.arg(1, "ord" if is_vector else "p", 2)
    dim, keep = call.arg(2, "dim"), call.arg(3, "keepdim", False)
    if order not in (1, 2, "fro") or call.dtype() is not call.out_dtype:
        return lg.decline(f"its order is {order!r}")
    return _reduced(call, "ReduceL1" if order == 1 else "ReduceL2", dim, keep)


# --- products ---


@TABLE.functions("matmul bmm mm mv dot")
def lower_matmul(call: Call) -> Any:
    """Multiply matrices."""
    return call.op("MatMul", call.x, call.arg(1, "other", call.step.kwargs.get("mat2")))


@TABLE.functions("addmm baddbmm")
def lower_addmm(call: Call) -> Any:
    """Multiply matrices, and add."""
    factors = call.step.kwargs.get("beta", 1), call.step.kwargs.get("alpha", 1)
    dtype = call.out_dtype
    named = call.step.kwargs
    left = call.arg(1, "mat1", named.get("batch1"))
    right = call.arg(2, "mat2", named.get("batch2"))
    product = call.op("MatMul", left, right)
    added = call.x
    if factors[1] != 1:
        product = call.op("Mul", product, call.value(factors[1], dtype))
    if factors[0] == 0:
        return product
    if factors[0] != 1:
        added = call.op("Mul", added, call.value(factors[0], dtype))
    return call.op("Add", added, product)


@TABLE.functions("einsum")
def lower_einsum(call: Call) -> Any:
    """Einsum."""
    equation, *operands = call.step.args
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = list(operands[0])
    if not isinstance(equation, str):
        return lg.decline("its equation is no text")
    return call.op("Einsum", *operands, equation=equation.replace(" ", ""))


@TABLE.functions("linear")
def lower_linear(call: Call) -> Any:
    """Multiply with a matrix, and add a bias."""
    return linear(call, call.arg(1, "weight"), call.arg(2, "bias"), call.rank(1, "weight"))


@TABLE.layers("linear")
def lower_linear_layer(call: Call) -> Any:
    """Multiply with a matrix, and add a bias."""
    return linear(call, call.weight("weight"), call.weight("bias"))


def linear(call: Call, weight: Any, bias: Any, rank: int = 2) -> Any:
    """Return the product of the first argument and a transposed matrix, plus a bias."""
    if rank == 2 and call.rank() == 2 and bias is not None:
        return call.op("Gemm", call.x, weight, bias, transB=1)
    if rank != 2:
        return lg.decline("its weight is no matrix")
    product = call.op("MatMul", call.x, call.op("Transpose", weight, perm=[1, 0]))
    return product if bias is None else call.op("Add", product, bias)


@TABLE.operators("_grouped_mm.default")
def lower_grouped_product(call: Call) -> Any:
    """Multiply each group of rows by its own matrix; offsets state the ends of groups."""
    ends, groups = call.arg(2, "offs"), call.shape(1, "mat2")[0]
    if call.rank() != 2 or call.rank(1, "mat2") != 3 or not isinstance(groups, int):
        return lg.decline("its groups are not the rows of one matrix")
    if ends is None or call.arg(3, "bias") is not None or call.arg(4, "out_dtype") is not None:
        return lg.decline("it has a bias, or another dtype")
    ends, start, products = call.cast(ends, INT64), call.ints([0]), []
    for group in range(groups):
        end = call.cut(ends, 0, group, group + 1)
        rows = call.op("Slice", call.x, start, end, call.ints([0]))
        matrix = call.squeeze(call.cut(call.arg(1, "mat2"), 0, group, group + 1), [0])
        products.append(call.op("MatMul", rows, matrix))
        start = end
    return call.op("Concat", *products, axis=0)


# --- attention ---


@TABLE.functions("scaled_dot_product_attention")
@TABLE.takes_maybe
def lower_attention(call: Call) -> Any:
    """Attention: the softmax of the products of queries and keys, times the values."""
    query, key, value = call.x, call.arg(1, "key"), call.arg(2, "value")
    mask, is_causal = call.arg(3, "attn_mask"), call.arg(5, "is_causal", False)
    if call.arg(4, "dropout_p", 0.0) or call.step.kwargs.get("enable_gqa"):
        return lg.decline("it has dropout, or groups of queries")
    scale, width, dtype = call.step.kwargs.get("scale"), call.shape()[-1], call.out_dtype
    if is_value(scale) or not isinstance(width, int):
        return lg.decline("its scale is computed")
    if any(isinstance(each, Maybe) for each in (query, key, value, is_causal)):
        return lg.decline(MAYBE)
    # As in torch: scale queries and keys by the square root of the factor.
    root = call.value(math.sqrt(1 / math.sqrt(width) if scale is None else scale), dtype)
    rank = call.rank(1, "key")
    order = [*range(rank - 2), rank - 1, rank - 2]
    turned = call.op("Mul", call.op("Transpose", key, perm=order), root)
    scores = call.op("MatMul", call.op("Mul", query, root), turned)
    kind = None if mask is None else call.dtype(3, "attn_mask")
    if isinstance(mask, Maybe) and kind is not None:
        mask = _mask(call, mask, kind)
    if is_value(is_causal) or is_causal:
        causal = _causal(call, query, key)
        if is_value(is_causal):
            causal = call.op("Or", causal, call.op("Not", is_causal))
        if kind not in (None, torch.bool):
            return lg.decline("it is causal on one way of a decision, and has a mask of numbers")
        mask = causal if mask is None else call.op("And", causal, mask)
        kind = torch.bool
    return _attended(call, scores, mask, kind, value)


def _causal(call: Call, query: Value, key: Value) -> Any:
    """Return the causal mask."""
    ends = [
        call.op("Shape", each, start=at, end=at + 1)
        for each, at in ((query, call.rank() - 2), (key, call.rank(1, "key") - 2))
    ]
    ones = call.op("Expand", call.value(1, INT64), call.op("Concat", *ends, axis=0))
    return call.cast(call.op("Trilu", ones, upper=0), torch.bool)


def _mask(call: Call, mask: Maybe, dtype: torch.dtype) -> Any:
    """Return the mask, or an all-pass mask if there is none."""
    condition = mask.condition if mask.expected else call.op("Not", mask.condition)
    free = call.backend.constant(dtype is torch.bool, dtype)
    if dtype is torch.bool:
        return call.op("Or", mask.value, call.op("Not", condition))
    return call.op("Where", condition, mask.value, free)


def _attended(call: Call, scores: Value, mask: Any, kind: torch.dtype | None, value: Value) -> Any:
    dtype = call.out_dtype
    if kind is torch.bool:
        lowest = call.value(-math.inf, dtype)
        scores = call.op("Where", mask, scores, lowest)
    elif mask is not None:
        scores = call.op("Add", scores, mask)
    weights = call.op("Softmax", scores, axis=-1)
    if kind is not None:
        # For a fully masked query, torch returns 0, while the softmax is NaN.
        weights = call.op("Where", call.op("IsNaN", weights), call.value(0, dtype), weights)
    return call.op("MatMul", weights, value)
