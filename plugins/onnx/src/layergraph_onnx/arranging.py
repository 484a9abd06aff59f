"""Functions that change shapes or select elements."""

from __future__ import annotations

from typing import Any

import torch

import layergraph as lg
from layergraph_onnx.call import INT64, LAST, Call, is_value
from layergraph_onnx.table import TABLE
from layergraph_onnx.target import Value
from layergraph_shapes import TensorMeta

# --- sizes ---


@TABLE.functions("size shape")
def lower_size(call: Call) -> Any:
    """Return a size that has a name, or all sizes."""
    dim = call.arg(1, "dim")
    shape = call.shape()
    if dim is not None:
        return _size(call, call.axis(dim))
    return tuple(_size(call, axis) for axis in range(len(shape)))


def _size(call: Call, axis: int) -> Any:
    size = call.shape()[axis]
    return size if isinstance(size, int) else call.size(call.x, axis)


@TABLE.functions("len")
def lower_len(call: Call) -> Any:
    """Return the first size."""
    return _size(call, 0)


@TABLE.functions("numel")
def lower_numel(call: Call) -> Any:
    """Return the number of elements."""
    return call.backend.number(call.op("Size", call.x), INT64)


# --- shapes ---


@TABLE.functions("view reshape view_as reshape_as unflatten flatten ravel")
@TABLE.layers("flatten unflatten")
def lower_reshape(call: Call) -> Any:
    """Reshape to the shape of the result."""
    if call.dtype() is not call.out_dtype:
        return lg.decline("it reads the bytes of the numbers as another dtype")
    sizes: list[Any] = []
    names = [each for each in call.out.shape if isinstance(each, str)]
    if len(names) > 1 or (names and 0 in call.out.shape):
        sizes = _asked(call)
        if not sizes:
            return lg.decline("more than one size of its result has a name")
    return call.reshaped(call.x, call.out.shape, sizes)


def _asked(call: Call) -> list[Any]:
    """Return the sizes of the result as values."""
    name = call.step.kind.rpartition(".")[2]
    if name in ("view", "reshape"):
        return call.dims(1, "shape")
    if name.endswith("_as"):
        return [call.size(call.arg(1, "other"), axis) for axis in range(len(call.out.shape))]
    # The sizes that the result has in common with the argument.
    own = call.shape()
    found: list[Any] = []
    for size in call.out.shape:
        if isinstance(size, str) and size in own:
            found.append(call.size(call.x, own.index(size)))
        else:
            found.append(-1 if isinstance(size, str) else size)
    return found if found.count(-1) <= 1 else []


@TABLE.functions("expand expand_as broadcast_to")
def lower_expand(call: Call) -> Any:
    """Repeat along axes of size 1."""
    if call.step.kind.endswith("_as"):
        return call.op("Expand", call.x, call.op("Shape", call.arg(1, "other")))
    shape = call.out.shape
    if any(isinstance(each, str) for each in shape):
        # In ONNX, size 1 keeps the size of the input.
        asked = call.dims(1, "size")
        shape = tuple(1 if not is_value(each) and each == -1 else each for each in asked)
    return call.op("Expand", call.x, call.sizes(shape))


@TABLE.functions("repeat")
def lower_repeat(call: Call) -> Any:
    """Repeat along each axis."""
    repeats = call.dims(1, "repeats")
    more = len(repeats) - call.rank()
    return call.op("Tile", call.unsqueeze(call.x, range(more)), call.sizes(repeats))


@TABLE.functions("transpose swapaxes swapdims")
def lower_transpose(call: Call) -> Any:
    """Exchange two axes."""
    order = list(range(call.rank()))
    if order:
        a, b = call.axis(call.arg(1, "dim0")), call.axis(call.arg(2, "dim1"))
        order[a], order[b] = order[b], order[a]
    return call.op("Transpose", call.x, perm=order)


@TABLE.functions("t T mT")
def lower_t(call: Call) -> Any:
    """Exchange the last two axes."""
    order = list(range(call.rank()))
    if call.step.kind.endswith(".T"):
        order = order[::-1]
    elif len(order) > 1:
        order[-2:] = order[-1], order[-2]
    return call.op("Transpose", call.x, perm=order)


@TABLE.functions("permute")
def lower_permute(call: Call) -> Any:
    """Put the axes in another order."""
    return call.op("Transpose", call.x, perm=call.axes(call.dims(1, "dims")))


@TABLE.functions("unsqueeze")
def lower_unsqueeze(call: Call) -> Any:
    """Add an axis."""
    return call.unsqueeze(call.x, [call.axis(call.arg(1, "dim"), call.rank() + 1)])


@TABLE.functions("squeeze")
def lower_squeeze(call: Call) -> Any:
    """Remove axes of size 1."""
    return (
        call.reshaped(call.x, call.out.shape)
        if _is_simple(call)
        else lg.decline("more than one size of its result has a name")
    )


def _is_simple(call: Call) -> bool:
    return sum(isinstance(each, str) for each in call.out.shape) <= 1


@TABLE.functions("cat concat concatenate")
def lower_cat(call: Call) -> Any:
    """Concatenate."""
    tensors = call.arg(0, "tensors")
    metas = call.meta(0, "tensors")
    dim = call.arg(1, "dim", 0)
    if not isinstance(tensors, tuple | list):
        return lg.decline("it concatenates no list")
    dtype = call.out_dtype
    # torch leaves out tensors of shape (0,).
    given = [
        call.value(each, dtype, meta.dtype)
        for each, meta in zip(tensors, metas, strict=True)
        if meta.shape != (0,) or len(call.out.shape) == 1
    ]
    if len(given) == 1:
        return given[0]
    return call.op("Concat", *given, axis=call.axis(dim, len(call.out.shape)))


@TABLE.functions("stack")
def lower_stack(call: Call) -> Any:
    """Concatenate along a new axis."""
    axis = call.axis(call.arg(1, "dim", 0), len(call.out.shape))
    dtype = call.out_dtype
    given = [
        call.unsqueeze(call.value(each, dtype, meta.dtype), [axis])
        for each, meta in zip(call.arg(0, "tensors"), call.meta(0, "tensors"), strict=True)
    ]
    return call.op("Concat", *given, axis=axis)


@TABLE.functions("chunk split tensor_split split_with_sizes unsafe_chunk unsafe_split")
def lower_split(call: Call) -> Any:
    """Split into the parts of the result."""
    parts = call.step.meta
    axis = call.axis(call.arg(2, "dim", 0))
    sizes = [each.shape[axis] for each in parts]
    if not all(isinstance(each, int) for each in sizes):
        return lg.decline("the sizes of its parts have names")
    if len(sizes) == 1:
        return (call.x,)
    found = call.op("Split", call.x, call.ints(sizes), outputs=len(sizes), axis=axis)
    return tuple(found)


@TABLE.functions("unbind")
def lower_unbind(call: Call) -> Any:
    """Return the parts along an axis."""
    axis = call.axis(call.arg(1, "dim", 0))
    return tuple(
        call.op("Gather", call.x, call.backend.constant(number, INT64), axis=axis)
        for number in range(len(call.step.meta))
    )


@TABLE.functions("select")
def lower_select(call: Call) -> Any:
    """Return one part along an axis."""
    axis = call.axis(call.arg(1, "dim"))
    return call.op("Gather", call.x, call.value(call.arg(2, "index"), INT64), axis=axis)


@TABLE.functions("narrow")
def lower_narrow(call: Call) -> Any:
    """Return a slice."""
    axis, start, length = call.axis(call.arg(1, "dim")), call.arg(2, "start"), call.arg(3, "length")
    if not all(isinstance(each, int) for each in (start, length)) or start < 0:
        return lg.decline("its start or length is computed or negative")
    return call.cut(call.x, axis, start, start + length)


@TABLE.functions("index_select")
def lower_index_select(call: Call) -> Any:
    """Return parts along an axis."""
    return call.op("Gather", call.x, call.arg(2, "index"), axis=call.axis(call.arg(1, "dim")))


@TABLE.functions("gather")
def lower_gather(call: Call) -> Any:
    """Return a number for each index."""
    if not call.rank() or not call.rank(2, "index"):
        return lg.decline("it has no axis")
    return call.op(
        "GatherElements", call.x, call.arg(2, "index"), axis=call.axis(call.arg(1, "dim"))
    )


@TABLE.functions("triu tril")
def lower_triangle(call: Call) -> Any:
    """Keep a triangle."""
    diagonal = call.value(call.arg(1, "diagonal", 0), INT64)
    upper = int(call.step.kind.rstrip("_").endswith("triu"))
    x, dtype = call.x, call.out_dtype
    if dtype is torch.bool:
        cut = call.op("Trilu", call.cast(x, INT64), diagonal, upper=upper)
        return call.cast(cut, dtype)
    return call.op("Trilu", x, diagonal, upper=upper)


@TABLE.functions("flip")
def lower_flip(call: Call) -> Any:
    """Reverse axes."""
    x = call.x
    for axis in call.axes(call.dims(1, "dims")):
        x = call.cut(x, axis, -1, -LAST, -1)
    return x


@TABLE.functions("roll")
def lower_roll(call: Call) -> Any:
    """Move the numbers along axes, from the end to the beginning."""
    shifts, dims = call.arg(1, "shifts"), call.arg(2, "dims")
    if dims is None or dims in ((), []):
        return lg.decline("it rolls the numbers without axes")
    shifts = [shifts] if not isinstance(shifts, tuple | list) else shifts
    x = call.x
    for shift, axis in zip(shifts, call.axes(dims), strict=True):
        size = call.shape()[axis]
        if not isinstance(shift, int) or not isinstance(size, int):
            return lg.decline("its shift or the size is computed")
        if size and shift % size:
            at = size - shift % size
            parts = call.cut(x, axis, at, LAST), call.cut(x, axis, 0, at)
            x = call.op("Concat", *parts, axis=axis)
    return x


# --- indexing ---


@TABLE.functions("getitem")
def lower_getitem(call: Call) -> Any:
    """Index a tensor with numbers, slices, None and at most one tensor of indices."""
    if not isinstance(call.meta(), TensorMeta):
        return lg.decline("what it indexes is no tensor")
    key = call.arg(1, "key")
    metas = call.meta(1, "key")
    parts = list(key) if isinstance(key, tuple) else [key]
    described = list(metas) if isinstance(key, tuple) else [metas]
    if any(isinstance(each, list | bool) for each in parts):
        return lg.decline("its index is a list or a bool")
    tensors = [at for at, each in enumerate(described) if isinstance(each, TensorMeta)]
    if len(tensors) > 1 or any(described[at].dtype is torch.bool for at in tensors):
        return lg.decline("it has more than one tensor of indices, or a mask")
    if tensors and any(_is_number(*both) for both in zip(parts, described, strict=True)):
        return lg.decline("it has a tensor of indices and a number")
    return _indexed(call, parts, described)


def _is_number(part: Any, meta: Any) -> bool:
    return isinstance(part, int) or (is_value(part) and not isinstance(meta, TensorMeta))


def _indexed(call: Call, parts: list[Any], metas: list[Any]) -> Any:
    used = sum(1 for each in parts if each is not None and each is not ...)
    x, axis = call.x, 0
    for part, meta in zip(parts, metas, strict=True):
        if part is ...:
            axis += call.rank() - used
        elif part is None:
            x, axis = call.unsqueeze(x, [axis]), axis + 1
        elif isinstance(part, slice):
            x, axis = _sliced(call, x, axis, part), axis + 1
        elif _is_number(part, meta):
            x = call.op("Gather", x, call.value(part, INT64, INT64), axis=axis)
        else:
            x = call.op("Gather", x, part, axis=axis)
            axis += len(meta.shape)
    return x


def _sliced(call: Call, x: Value, axis: int, part: slice) -> Any:
    start, stop, step = part.start, part.stop, part.step
    if start in (None, 0) and stop is None and step in (None, 1):
        return x
    return call.cut(
        x, axis, 0 if start is None else start, LAST if stop is None else stop, step or 1
    )
