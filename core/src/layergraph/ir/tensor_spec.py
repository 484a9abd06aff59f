"""The description of a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from layergraph.ir.values import Value, copied

MAX_DIMENSIONS = 64
"""The most dimensions of a tensor that torch computes with."""


@dataclass(slots=True)
class Packing:
    """The plain tensors and plain values that make up a tensor of another kind.

    A quantized weight has its integers and its scales, a sparse tensor its indices and values.

    Attributes:
        kind: the name of its kind, a row of the hook ``tensor_kinds``: ``"torchao.Int8Tensor"``.
        parts: the specs of the plain tensors by name. Each states its shape; stride, dtype and
            value are as in other specs.
        data: the plain values, by name.

    Example:
        >>> from layergraph.ir import Packing, TensorSpec
        >>> parts = {"values": TensorSpec(shape=(3,))}
        >>> Packing("acme.Runs", parts, {"size": 8}).said()
        {'kind': 'acme.Runs', 'parts': {'values': {'shape': (3,)}}, 'data': {'size': 8}}
    """

    kind: str
    parts: dict[str, TensorSpec]
    data: dict[str, Value] = field(default_factory=dict)

    def copy(self) -> Packing:
        """Return a copy that shares no mutable object with this one."""
        parts = {name: part.copy() for name, part in self.parts.items()}
        return Packing(self.kind, parts, copied(self.data))

    def said(self) -> dict[str, Any]:
        """Return the attributes by name, as plain values."""
        parts = {name: spec.said() for name, spec in self.parts.items()}
        return {"kind": self.kind, "parts": parts, "data": copied(self.data)}


@dataclass(slots=True)
class TensorSpec:
    """The facts about a tensor of a layer that neither a state dict nor the layer's type states.

    None stands for the default: dtype float32, complex64, int64 or bool; ``requires_grad`` of
    parameters and ``persistent`` of buffers True.

    Attributes:
        kind: ``parameter``, ``buffer``, or ``constant`` (in no state dict); None if the layer's
            constructor makes the tensor.
        shape: its shape; None if the constructor decides it.
        stride: its strides in elements; None if contiguous. The last bits of results depend on the
            strides.
        dtype: for example ``"float64"``.
        requires_grad: False for a frozen parameter.
        persistent: False for a buffer that state dicts leave out.
        narrows: False for a buffer that keeps its dtype and numbers in a cast of the model to a
            narrower dtype.
        tied: the key, in the state dict of the whole model, of an earlier entry for the same
            tensor.
        value: the bytes of a tensor that travels with the IR: contiguous, little-endian.
        packed: the parts of a tensor of another kind, such as a sparse one. The parts have the
            values.
    """

    kind: Literal["parameter", "buffer", "constant"] | None = None
    shape: tuple[int, ...] | None = None
    stride: tuple[int, ...] | None = None
    dtype: str | None = None
    requires_grad: bool | None = None
    persistent: bool | None = None
    narrows: bool | None = None
    tied: str | None = None
    value: bytes | None = None
    packed: Packing | None = None

    def __repr__(self) -> str:
        said = [f"{key}={value!r}" for key, value in self.said().items() if key != "value"]
        if self.value is not None:
            said.append(f"value=<{len(self.value)} bytes>")
        return f"TensorSpec({', '.join(said)})"

    def said(self) -> dict[str, Any]:
        """Return the attributes that are not None, by name, as plain values."""
        said = {key: value for key in self.__slots__ if (value := getattr(self, key)) is not None}
        if self.packed is not None:
            said["packed"] = self.packed.said()
        return said

    def copy(self) -> TensorSpec:
        """Return a copy that shares no mutable object with this one."""
        return replace(self, packed=None if self.packed is None else self.packed.copy())

    def held(self) -> Iterator[TensorSpec]:
        """Yield the specs of the plain tensors that the tensor consists of."""
        yield from [self] if self.packed is None else self.packed.parts.values()
