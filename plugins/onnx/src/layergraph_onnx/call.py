"""A step of a model, with helpers for the handlers of ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir
import torch

from layergraph.errors import LayergraphError
from layergraph.ir.values import Symbol, map_leaves
from layergraph_backends import Step
from layergraph_backends.plain import of_torch
from layergraph_onnx.dtypes import to_onnx
from layergraph_onnx.target import Onnx, Value
from layergraph_shapes import Either, TensorMeta

INT64 = torch.int64
LAST = (1 << 63) - 1


class Call:
    """A step of a model, with helpers for the handlers of ONNX.

    Args:
        step: the step.
        backend: the back end.
    """

    def __init__(self, step: Step, backend: Onnx) -> None:
        self.step = step
        self.backend = backend
        self.op = backend.op

    # --- arguments ---

    @property
    def x(self) -> Any:
        """The first argument."""
        return self.arg(0, "input", self.step.kwargs.get("self"))

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument, by position or name; dtypes as objects of torch."""
        found = self.step.argument(position, name, default)
        return of_torch(found) if isinstance(found, Symbol) else found

    def meta(self, position: int = 0, name: str = "input") -> Any:
        """Return the description of an argument."""
        if position < len(self.step.arg_metas):
            return merged(self.step.arg_metas[position])
        return merged(self.step.kwarg_metas.get(name))

    def shape(self, position: int = 0, name: str = "input") -> tuple[int | str, ...]:
        """Return the shape of a tensor argument; () for a number."""
        meta = self.meta(position, name)
        return meta.shape if isinstance(meta, TensorMeta) else ()

    def rank(self, position: int = 0, name: str = "input") -> int:
        """Return the number of axes of an argument."""
        return len(self.shape(position, name))

    def axis(self, dim: int, rank: int | None = None) -> int:
        """Return an axis of the first argument, counted from the first one."""
        rank = self.rank() if rank is None else rank
        return dim + rank if dim < 0 else dim

    def axes(self, dim: Any) -> list[int]:
        """Return axes of the first argument, counted from the first one; all for None."""
        if dim is None or dim in ((), []):
            return list(range(self.rank()))
        listed = [dim] if isinstance(dim, int) else list(dim)
        return [self.axis(each) for each in listed]

    def dims(self, position: int, name: str) -> list[Any]:
        """Return sizes or axes, passed as one argument or as all arguments from there."""
        given = self.step.args[position:] or (self.step.kwargs.get(name, ()),)
        if len(given) == 1 and isinstance(given[0], tuple | list):
            return list(given[0])
        return list(given)

    # --- dtypes ---

    @property
    def out(self) -> TensorMeta:
        """The description of the result, a tensor."""
        found: TensorMeta = merged(self.step.meta)
        return found

    @property
    def out_dtype(self) -> torch.dtype:
        """The dtype of the result."""
        meta = merged(self.step.meta)
        if isinstance(meta, TensorMeta):
            return meta.dtype
        found = [self.dtype(at) for at in range(len(self.step.args))]
        return torch.float32 if torch.float32 in found or torch.float64 in found else INT64

    def dtype(self, position: int = 0, name: str = "input") -> torch.dtype:
        """Return the dtype of an argument, a tensor or a number."""
        meta, value = self.meta(position, name), self.arg(position, name)
        if isinstance(meta, TensorMeta):
            return meta.dtype
        if isinstance(value, Value):
            found: torch.dtype = value.meta.get("dtype", INT64)
            return found
        kinds = {bool: torch.bool, int: INT64, float: torch.float32}
        return kinds.get(type(value), torch.float32)

    def promoted(self, *positions: int) -> torch.dtype:
        """Return the dtype in which torch computes with arguments."""
        found: torch.dtype | None = None
        for weak in (False, True):  # tensors decide before numbers
            for at in positions:
                meta = self.meta(at, "other")
                is_number = not isinstance(meta, TensorMeta)
                if is_number == weak:
                    found = self._with(found, at, meta)
        return found or torch.float32

    def _with(self, found: torch.dtype | None, at: int, meta: Any) -> torch.dtype:
        own = self.dtype(at, "other")
        if found is None:
            return own
        if isinstance(meta, TensorMeta) and meta.shape:
            return torch.promote_types(found, own)
        # A number or a tensor without axes counts only if it is of a higher kind.
        one = torch.empty(1, dtype=found, device="meta")
        return torch.result_type(one, torch.empty((), dtype=own, device="meta"))

    # --- values ---

    def value(self, value: Any, dtype: torch.dtype, now: torch.dtype | None = None) -> Value:
        """Return a value with a dtype: a cast one, or a constant for a number.

        Args:
            value: a value, or a number.
            dtype: the dtype.
            now: its current dtype; None to cast it always.
        """
        if not isinstance(value, Value):
            return self.backend.constant(value, dtype)
        return value if now is dtype else self.cast(value, dtype)

    def operand(self, position: int, dtype: torch.dtype, name: str = "input") -> Value:
        """Return an argument with a dtype."""
        return self.value(self.arg(position, name), dtype, self.dtype(position, name))

    def cast(self, value: Value, dtype: torch.dtype) -> Value:
        """Return a value in another dtype."""
        return self.backend.number(self.op("Cast", value, to=int(to_onnx(dtype))), dtype)

    def ints(self, numbers: Sequence[int]) -> Value:
        """Return a list of numbers as a constant."""
        return self.backend.constant(torch.tensor(list(numbers), dtype=INT64), INT64)

    def sizes(self, sizes: Sequence[Any]) -> Any:
        """Return a 1-D value for a list of numbers, some of which may be values."""
        if all(isinstance(each, int) for each in sizes):
            return self.ints(sizes)
        listed = [
            self.op("Reshape", each, self.ints([1]))
            if isinstance(each, Value)
            else self.ints([each])
            for each in sizes
        ]
        return listed[0] if len(listed) == 1 else self.op("Concat", *listed, axis=0)

    def weight(self, name: str) -> Value | None:
        """Return a tensor of the layer; None if it has no such tensor."""
        tensor = self.step.tensors.get(name)
        return None if tensor is None else self.backend.tensor(self.step.key(name), tensor)

    def squeeze(self, value: Value, axes: Sequence[int]) -> Any:
        """Return a value without axes of size 1."""
        return self.op("Squeeze", value, self.ints(axes)) if axes else value

    def unsqueeze(self, value: Value, axes: Sequence[int]) -> Any:
        """Return a value with more axes of size 1."""
        return self.op("Unsqueeze", value, self.ints(axes)) if axes else value

    def cut(self, value: Value, axis: int, start: Any, stop: Any, step: Any = 1) -> Any:
        """Return a slice of a value along one axis."""
        given = (self.sizes([each]) for each in (start, stop, axis, step))
        return self.op("Slice", value, *given)

    def size(self, value: Value, axis: int) -> Value:
        """Return one size of a value as a number."""
        shape = self.op("Shape", value, start=axis, end=axis + 1)
        return self.backend.number(self.squeeze(shape, [0]), INT64)

    def reshaped(self, value: Value, shape: Sequence[int | str], sizes: Sequence[Any] = ()) -> Any:
        """Return a value in another shape.

        Args:
            value: the value.
            shape: the shape, which may contain names of sizes.
            sizes: the sizes as values, for a shape with several names.
        """
        names = [each for each in shape if isinstance(each, str)]
        if not names:
            zero = 1 if 0 in shape else None
            return self.op("Reshape", value, self.ints(shape), allowzero=zero)  # type: ignore[arg-type]
        if len(names) == 1 and 0 not in shape:
            known = [-1 if isinstance(each, str) else each for each in shape]
            return self.op("Reshape", value, self.ints(known))
        known_sizes = [
            own if isinstance(own, int) else given for own, given in zip(shape, sizes, strict=True)
        ]
        return self.op("Reshape", value, self.sizes(known_sizes))


def merged(meta: Any) -> Any:
    """Return one description of a value with different ones on the ways of a decision.

    Raises:
        LayergraphError: the ranks or dtypes differ between the ways.
    """
    return map_leaves(_merged, meta)


def _merged(meta: Any) -> Any:
    if not isinstance(meta, Either):
        return meta
    ways = merged(meta.if_true), merged(meta.if_false)
    if None in ways:
        return ways[0] if ways[1] is None else ways[1]
    one, other = ways
    if one == other:
        return one
    if not isinstance(one, TensorMeta) and not isinstance(other, TensorMeta):
        return None  # numbers
    are_tensors = isinstance(one, TensorMeta) and isinstance(other, TensorMeta)
    if not are_tensors or len(one.shape) != len(other.shape) or one.dtype != other.dtype:
        raise LayergraphError(f"the ways of a decision return {one} and {other}")
    pairs = zip(one.shape, other.shape, strict=True)
    sizes = [a if a == b else f"either_{at}" for at, (a, b) in enumerate(pairs)]
    return TensorMeta(tuple(sizes), one.dtype)


def is_value(value: object) -> bool:
    """Return whether an object is a value of ONNX."""
    return isinstance(value, onnx_ir.Value)
