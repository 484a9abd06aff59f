"""Convert primitives of NIR to layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import nir  # type: ignore[import-untyped]
import numpy as np

from layergraph.errors import ArgumentError
from layergraph_nir.modules import DT, PRIMITIVES

Shape = tuple[int, ...]
NO_BIAS = "no bias"
_LARGEST = 2**31


class Primitive(NamedTuple):
    """The layer of a primitive.

    Attributes:
        type: the type of the layer.
        data: its attributes.
        tensors: its tensors as arrays of numpy, by name.
        takes: the shape of its input, without the batch; None if it is not fixed.
        gives: a function that returns the shape of its output for the shape of its input.
    """

    type: str
    data: dict[str, Any]
    tensors: dict[str, Any]
    takes: Shape | None
    gives: Callable[[Shape], Shape]


class PrimitiveError(ArgumentError):
    """No layer can compute a node of NIR. The reader adds the path of the node to the message."""


def primitive_of(node: Any, dt: float) -> Primitive:
    """Convert a node of NIR to a layer.

    Args:
        node: the node.
        dt: the length of a time step, in seconds.

    Raises:
        PrimitiveError: the values of the node do not fit, or no layer computes its class.
    """
    make = _TABLE.get(type(node))
    if make is None:
        raise PrimitiveError(f"{type(node).__name__} is a node that no layer computes")
    return make(node, dt)


def _numbers(node: Any, name: str) -> Any:
    numbers = np.asarray(getattr(node, name))
    if numbers.dtype.kind not in "fiub":
        raise PrimitiveError(f"its {name} holds no real numbers, but {numbers.dtype}")
    return numbers


def _sizes(node: Any, name: str, count: int, least: int) -> tuple[int, ...]:
    """Return an attribute of a node as one integer for each dimension."""
    given = np.asarray(getattr(node, name)).reshape(-1)
    whole = given.dtype.kind in "iu" or (given.dtype.kind == "f" and bool((given % 1 == 0).all()))
    if not whole or len(given) not in (1, count):
        raise PrimitiveError(f"its {name} is {given.tolist()!r:.60} instead of {count} integers")
    sizes = tuple(int(each) for each in given) * (count if len(given) == 1 else 1)
    if not all(least <= each < _LARGEST for each in sizes):
        raise PrimitiveError(f"its {name} is {sizes}; the least is {least}")
    return sizes


def _linear(node: Any, dt: float) -> Primitive:  # noqa: ARG001 the table needs it
    weight = _numbers(node, "weight")
    if weight.ndim != 2:
        raise PrimitiveError(
            f"its weight has {weight.ndim} dimensions; a linear layer has a weight of 2"
        )
    tensors = {"weight": weight}
    if isinstance(node, nir.Affine):
        tensors["bias"] = _numbers(node, "bias")
        if tensors["bias"].shape != weight.shape[:1]:
            raise PrimitiveError(
                f"its bias has the shape {tensors['bias'].shape}, and its weight {weight.shape}"
            )
    count, inputs = weight.shape
    data = {"in_features": inputs, "out_features": count, "bias": "bias" in tensors}

    def gives(shape: Shape) -> Shape:
        if shape != (inputs,):
            raise PrimitiveError(f"it takes the shape {(inputs,)}, and gets {shape}")
        return (count,)

    return Primitive("linear", data, tensors, (inputs,), gives)


def _convolution(node: Any, dt: float) -> Primitive:  # noqa: ARG001 the table needs it
    dims = 1 if isinstance(node, nir.Conv1d) else 2
    weight, bias = _numbers(node, "weight"), _numbers(node, "bias")
    (groups,) = _sizes(node, "groups", 1, 1)
    if weight.ndim != dims + 2 or 0 in weight.shape:
        raise PrimitiveError(f"its weight has the shape {weight.shape}")
    if bias.shape != weight.shape[:1] or weight.shape[0] % groups:
        raise PrimitiveError(
            f"its weight has the shape {weight.shape}, its bias {bias.shape}, and groups is "
            f"{groups}; they do not fit"
        )
    kernel = weight.shape[2:]
    stride = _sizes(node, "stride", dims, 1)
    dilation = _sizes(node, "dilation", dims, 1)
    padding: Any = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
    if not isinstance(padding, str):
        padding = _sizes(node, "padding", dims, 0)
    elif padding not in ("same", "valid") or (padding == "same" and set(stride) != {1}):
        raise PrimitiveError(f"its padding is {padding!r:.40}, and its stride {stride}")
    has_bias = node.metadata.get("layergraph") != NO_BIAS or bool(bias.any())
    tensors = {"weight": weight, "bias": bias} if has_bias else {"weight": weight}
    data = {
        "in_channels": weight.shape[1] * groups,
        "out_channels": weight.shape[0],
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "bias": has_bias,
    }

    def gives(shape: Shape) -> Shape:
        if len(shape) != dims + 1 or shape[0] != weight.shape[1] * groups:
            raise PrimitiveError(
                f"it takes {weight.shape[1] * groups} channels of {dims} dimensions, and gets the "
                f"shape {shape}"
            )
        if padding == "same":
            return (len(weight), *shape[1:])
        ends = (0,) * dims if padding == "valid" else padding
        reach = [dilation[i] * (kernel[i] - 1) + 1 - 2 * ends[i] for i in range(dims)]
        return (len(weight), *_windows(shape[1:], reach, stride))

    return Primitive(f"conv{dims}d", data, tensors, None, gives)


def _windows(sizes: Shape, reach: list[int], stride: Shape) -> Shape:
    found = tuple((size - r) // s + 1 for size, r, s in zip(sizes, reach, stride, strict=True))
    if any(size < 1 for size in found):
        raise PrimitiveError(f"its kernel is larger than its input of the sizes {sizes}")
    return found


def _pooling(node: Any, dt: float) -> Primitive:  # noqa: ARG001 the table needs it
    kernel = _sizes(node, "kernel_size", 2, 1)
    stride = _sizes(node, "stride", 2, 1)
    padding = _sizes(node, "padding", 2, 0)
    data: dict[str, Any] = {"kernel_size": kernel, "stride": stride, "padding": padding}
    if isinstance(node, nir.SumPool2d):
        data["divisor_override"] = 1

    def gives(shape: Shape) -> Shape:
        if len(shape) != 3:
            raise PrimitiveError(f"it takes channels of 2 dimensions, and gets the shape {shape}")
        reach = [kernel[i] - 2 * padding[i] for i in range(2)]
        return (shape[0], *_windows(shape[1:], reach, stride))

    return Primitive("avgpool2d", data, {}, None, gives)


def _flatten(node: Any, dt: float) -> Primitive:  # noqa: ARG001 the table needs it
    (start,) = _sizes(node, "start_dim", 1, -64)
    (end,) = _sizes(node, "end_dim", 1, -64)

    def gives(shape: Shape) -> Shape:
        first, last = (each + len(shape) if each < 0 else each for each in (start, end))
        if not 0 <= first <= last < len(shape):
            raise PrimitiveError(f"it flattens dimensions {start} to {end} of the shape {shape}")
        return (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])

    # NIR does not count the batch. A negative dimension counts from the end.
    data = {
        name: each + 1 if each >= 0 else each
        for name, each in (("start_dim", start), ("end_dim", end))
    }
    return Primitive("flatten", data, {}, None, gives)


def _elementwise(node: Any, dt: float) -> Primitive:
    kind = f"nir_{type(node).__name__.lower()}"
    tensors = {name: _numbers(node, name) for name in PRIMITIVES[kind].parameters_of}
    shapes = {each.shape for each in tensors.values()}
    if len(shapes) != 1:
        raise PrimitiveError(f"its parameters have the shapes {sorted(shapes)}; give them one")
    (shape,) = shapes
    data: dict[str, Any] = {"shape": shape}
    if dt != DT:
        data["dt"] = dt
    for name in ("tau", "tau_mem", "tau_syn"):
        if name in tensors and not (tensors[name] > 0).all():
            raise PrimitiveError(f"its {name} is not above zero everywhere")
    if isinstance(node, nir.Delay):
        delay = tensors["delay"].astype(np.float64)
        if delay.size and not (delay.min() >= 0 and delay.max() / dt < _LARGEST):
            raise PrimitiveError("its delay is below zero, or too long")
        data["steps"] = max(1, round(float(delay.max()) / dt)) if delay.size else 1

    def gives(given: Shape) -> Shape:
        try:
            fits = np.broadcast_shapes(shape, given) == given
        except ValueError:
            fits = False
        if not fits:
            raise PrimitiveError(f"its parameters have the shape {shape}, and its input {given}")
        return given

    return Primitive(kind, data, tensors, shape or None, gives)


_TABLE: dict[Any, Callable[[Any, float], Primitive]] = {
    nir.Affine: _linear,
    nir.Linear: _linear,
    nir.Conv1d: _convolution,
    nir.Conv2d: _convolution,
    nir.AvgPool2d: _pooling,
    nir.SumPool2d: _pooling,
    nir.Flatten: _flatten,
    **{getattr(nir, cls.__name__): _elementwise for cls in PRIMITIVES.values()},
}
