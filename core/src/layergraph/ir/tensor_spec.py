"""The description of a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

MAX_DIMENSIONS = 64
"""A tensor may have as many dimensions as torch computes with."""


@dataclass(slots=True)
class TensorSpec:
    """The facts about a tensor of a layer that neither a state dict nor the layer's type states.

    An attribute is None where the usual value holds: float32, complex64, int64 or bool;
    ``requires_grad`` for parameters; persistence for buffers.

    Attributes:
        kind: ``parameter``, ``buffer``, or ``constant`` (in no state dict); None where the layer's
            own constructor makes the tensor.
        shape: its shape; None where the constructor decides it.
        stride: its strides, in elements, where it is not contiguous: the last bits of results
            depend on them.
        dtype: for example ``"float64"``.
        requires_grad: False for a frozen parameter.
        persistent: False for a buffer that state dicts leave out.
        tied: the key, in the state dict of the whole model, of an earlier entry for the same
            tensor.
        value: the bytes of a tensor that travels with the IR: contiguous, little-endian.
    """

    kind: Literal["parameter", "buffer", "constant"] | None = None
    shape: tuple[int, ...] | None = None
    stride: tuple[int, ...] | None = None
    dtype: str | None = None
    requires_grad: bool | None = None
    persistent: bool | None = None
    tied: str | None = None
    value: bytes | None = None

    def __repr__(self) -> str:
        said = [f"{key}={value!r}" for key, value in self.said().items() if key != "value"]
        if self.value is not None:
            said.append(f"value=<{len(self.value)} bytes>")
        return f"TensorSpec({', '.join(said)})"

    def said(self) -> dict[str, Any]:
        """Return the attributes that are not None, by name."""
        return {key: value for key in self.__slots__ if (value := getattr(self, key)) is not None}
