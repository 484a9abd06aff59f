"""The devices of a run: the graph takes a device from the tensor that it was read from."""

from __future__ import annotations

import dis
import functools
from collections import deque
from types import CodeType

import torch

from layergraph.ir import Value
from layergraph.ir.values import leaves
from layergraph.torch2ir.tracing.module_call import ModuleCall, TracedValue
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.binding import LazyElement


class Devices:
    """Maps each device object that code reads to its tensor.

    Args:
        recorder: records the reads of devices.
        device: the device of the inputs; None if unknown.
    """

    def __init__(self, recorder: Recorder, device: torch.device | None) -> None:
        self._recorder = recorder
        self._of_inputs = device
        self._known: dict[int, tuple[torch.device, LazyElement]] = {}

    def bind(self, device: torch.device, part: LazyElement) -> torch.device:
        """Record that code read a device from a tensor; return a new object for the device."""
        self._known[id(device)] = device, part
        return device

    def clear(self) -> None:
        """Forget all devices."""
        self._known.clear()

    def read(self, device: torch.device) -> Value:
        """Return the graph value of a device: that of its tensor, or else of the inputs."""
        known = self._known.get(id(device))
        if known is not None and known[0] is device:
            return known[1]()
        anchor = self._anchor() if device == self._of_inputs else None
        if anchor is None:
            return str(device)
        return self._recorder.call("function", "torch.Tensor.device", (anchor,), {})

    def read_type(self, kind: str) -> Value:
        """Return the graph value of a device type: that of the inputs, if it is equal."""
        here = self._of_inputs
        anchor = self._anchor() if here is not None and kind == here.type else None
        if anchor is None:
            return kind
        device = self._recorder.call("function", "torch.Tensor.device", (anchor,), {})
        return self._recorder.call("function", "torch.device.type", (device,), {})

    def _anchor(self) -> TracedValue | None:
        """Return a tensor argument of the current module call, or of the nearest one around it."""
        scope: ModuleCall | None = self._recorder.scope
        while scope is not None:
            for leaf in leaves(scope.args, scope.kwargs):
                if isinstance(leaf, TracedValue) and leaf.rank is not None:
                    return leaf
            scope = scope.parent
        return None


@functools.cache
def compared_kinds(code: CodeType) -> frozenset[str]:
    """Return the device types that code compares with, found as literals in its bytecode.

    A run cannot intercept a comparison of texts. "mps" is left out: libraries check for it to work
    around a missing feature, with the same result.
    """
    found: set[str] = set()
    near: deque[dis.Instruction] = deque(maxlen=_OPERANDS)
    for each in dis.get_instructions(code):
        near.append(each)
        if each.opname in _COMPARISONS or (each.opname == "CALL" and _is_test(near)):
            found.update(kind for one in near for kind in _kinds_in(one))
            near.clear()
    return frozenset(found)


# The most instructions of an operand, as in ``x.device == torch.device("cpu")``.
_OPERANDS = 9
_COMPARISONS = frozenset({"COMPARE_OP", "CONTAINS_OP"})
_KINDS = frozenset({"cpu", "cuda", "xpu"})


def _is_test(near: deque[dis.Instruction]) -> bool:
    return any(each.argval == "startswith" for each in near)


def _kinds_in(instruction: dis.Instruction) -> list[str]:
    if instruction.opname != "LOAD_CONST":
        return []
    values = instruction.argval
    listed = values if isinstance(values, tuple | frozenset) else (values,)
    return [kind for each in listed if type(each) is str for kind in _KINDS & {each.split(":")[0]}]
