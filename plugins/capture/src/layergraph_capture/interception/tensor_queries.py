"""Queries of tensors by model code: sizes, dtypes, devices and the grad mode."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import torch

from layergraph.ir import Value
from layergraph.literals import to_plain_literal
from layergraph.torch2ir.tracing.lines import user_frame
from layergraph.torch2ir.tracing.module_call import Fact, StateRead, TracedValue
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.interception.torch_modes import RecordingSwitch
from layergraph_capture.trackers.devices import compared_kinds
from layergraph_capture.trackers.ranks import Ranks
from layergraph_capture.trackers.run_trackers import RunTrackers

Query = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


# Facts that are the same for all tensors of graphs, or that need no guard.
_UNASKED = "__repr__ _version get_device is_nested".split()
# Whether the tensor has numbers, whether it can ever have gradients, and how it keeps its numbers.
_KINDS = (
    "is_inference",
    "is_meta",
    "is_mkldnn",
    "is_quantized",
    "is_sparse",
    "is_sparse_csr",
    "layout",
)
# The device type that each query asks for.
_DEVICES = {f"is_{kind}": kind for kind in "cpu cuda ipu mps mtia vulkan xpu".split()}


class TensorQueries:
    """Answers queries of tensors that need no numbers, and records the guards for the answers.

    Args:
        recorder: records the reads.
        trackers: the trackers of the run.
        switch: turns recording off for a call.
        refuse: records a refusal.
    """

    def __init__(
        self,
        recorder: Recorder,
        trackers: RunTrackers,
        switch: RecordingSwitch,
        refuse: Callable[[str], None],
    ) -> None:
        self._recorder = recorder
        self._known = trackers.tensors.read
        self._sizes = trackers.sizes
        self._devices = trackers.devices
        self._guards = trackers.guards
        self._decisions = trackers.decisions
        self._answer = switch.unrecorded
        self._refuse = refuse
        self._ranks = Ranks(recorder)
        # The value of the old grad mode for each open region, by the ``id`` of its context object.
        self._regions: dict[int, tuple[object, TracedValue]] = {}

    def table(self) -> dict[Any, Query]:
        """Return the query for each function that reads a fact of a tensor."""
        tensor: Any = torch.Tensor
        table: dict[Any, Query] = {
            tensor.shape.__get__: partial(self.sizes, _SIZE),
            tensor.size: partial(self.sizes, _SIZE),
            tensor.stride: partial(self.sizes, "torch.Tensor.stride"),
            tensor.__len__: self.length,
            tensor.device.__get__: self.device,
            torch._C._set_grad_enabled: self.grad_mode,
            tensor.grad_fn.__get__: self.leaf,
            tensor.is_leaf.__get__: self.leaf,
            torch.is_inference: partial(self.kind, "torch.Tensor.is_inference"),
        }
        table |= dict.fromkeys((tensor.numel, tensor.nelement, torch.numel), self.numel)
        table |= dict.fromkeys((tensor.dim, tensor.ndimension, tensor.ndim.__get__), self.rank)
        for function in (
            tensor.dtype.__get__,
            tensor.element_size,
            tensor.itemsize.__get__,
            tensor.is_floating_point,
            torch.is_floating_point,
            tensor.is_complex,
            torch.is_complex,
            tensor.is_signed,
            torch.is_signed,
            torch.result_type,
        ):
            table[function] = self.dtype
        for name in _UNASKED:
            table[_function(name)] = self.nothing
        for name in _KINDS:
            table[_function(name)] = partial(self.kind, f"torch.Tensor.{name}")
        for name, kind in _DEVICES.items():
            table[_function(name)] = partial(self.device_kind, kind)
        return table

    def _note(self, fact: Fact) -> None:
        self._recorder.scope.known.add(fact)

    # --- sizes ---

    def sizes(self, target: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer with symbolic sizes or strides."""
        answer = self._answer(func, args, kwargs)
        value = self._known(args[0])
        if not isinstance(value, TracedValue):
            return answer
        if not isinstance(answer, int):
            # The guard of the rank comes first: a tensor of another rank lacks these sizes.
            self._rank_of(args[0])
        late = self._recorder.late()
        if isinstance(answer, int):
            dim = int(args[1] if len(args) > 1 else kwargs["dim"])
            return self._sizes.late(answer, late, target, value, dim)
        known = [
            self._sizes.late(number, late, target, value, dim) for dim, number in enumerate(answer)
        ]
        return torch.Size(known) if isinstance(answer, torch.Size) else tuple(known)

    def numel(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer with the symbolic number of elements."""
        answer = self._answer(func, args, kwargs)
        value = self._known(args[0])
        if not isinstance(value, TracedValue):
            return answer
        late = self._recorder.late()
        return self._sizes.late(answer, late, "torch.Tensor.numel", value)

    def length(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer ``len()`` with the first size, which Python turns into a plain int."""
        answer = self._answer(func, args, kwargs)
        value = self._known(args[0])
        if isinstance(value, TracedValue):
            self._guards.expect_call(_SIZE, (value, 0), answer)
        return answer

    # --- kinds ---

    def rank(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer with the rank, and guard the ranks of the inputs."""
        self._rank_of(args[0])
        return self._answer(func, args, kwargs)

    def _rank_of(self, tensor: torch.Tensor) -> None:
        """Record that code depends on the rank of a tensor."""
        self._note("rank")
        value = self._known(tensor)
        is_inside = isinstance(value, TracedValue) and self._recorder.is_inside(value)
        if is_inside and self._ranks.follows_from_sizes(value):
            rank = self._answer(torch.Tensor.dim, (tensor,), {})
            self._guards.expect_call("torch.Tensor.dim", (value,), rank)

    def dtype(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer with the dtype, and guard the dtypes of the inputs or of a layer's result."""
        self._note("dtype")
        for tensor in args:
            if isinstance(tensor, torch.Tensor):
                value = self._known(tensor)
                inside = isinstance(value, TracedValue) and self._recorder.is_inside(value)
                if inside or isinstance(value, StateRead):
                    self._dtype_of(value, tensor)
        return self._answer(func, args, kwargs)

    def _dtype_of(self, value: Value, tensor: torch.Tensor) -> None:
        dtype = self._answer(torch.Tensor.dtype.__get__, (tensor,), {})  # type: ignore[attr-defined]
        self._guards.expect_call("torch.Tensor.dtype", (value,), to_plain_literal(dtype))

    def device(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer with a device, and remember the tensor."""
        device = self._answer(func, args, kwargs)
        value = self._known(args[0])
        frame = user_frame()
        for kind in () if frame is None else compared_kinds(frame.f_code):
            self._guards.expect_device(value, kind, device.type == kind)
        late = self._recorder.late()
        return self._devices.bind(
            device, lambda: late.call("device", "torch.Tensor.device", (value,))
        )

    def device_kind(self, kind: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer whether a tensor is on a type of device, and guard the answer."""
        answer: bool = self._answer(func, args, kwargs)
        self._guards.expect_device(self._known(args[0]), kind, answer)
        return answer

    def leaf(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer whether autograd has a function for the tensor: those that are no leaves."""
        is_leaf = torch.Tensor.is_leaf.__get__  # type: ignore[attr-defined]
        answer = self._answer(is_leaf, args[:1], {})
        self._guards.expect_call("torch.Tensor.is_leaf", (self._known(args[0]),), answer)
        return self._answer(func, args, kwargs)

    def kind(self, target: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer and guard a query whose answer depends only on the kind of tensor."""
        answer = self._answer(func, args, kwargs)
        self._guards.expect_call(target, (self._known(args[0]),), to_plain_literal(answer))
        return answer

    def nothing(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer a query that needs no guard."""
        return self._answer(func, args, kwargs)

    def grad_mode(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Record the enter or exit node of a ``no_grad`` or ``enable_grad`` region."""
        region, leaves = _region()
        known = self._regions.pop(id(region), None) if leaves else None
        given: Value = args[0] if known is None else known[1]
        value = self._recorder.call("function", "layergraph.set_grad_enabled", (given,), {})
        if region is not None and not leaves:
            # The first call returns the old mode.
            self._regions.setdefault(id(region), (region, value))
        self._decisions.is_in_region = region is None or bool(self._regions)
        return self._answer(func, args, kwargs)


def _function(name: str) -> Any:
    """Return a method of tensors, or the getter of an attribute."""
    member = getattr(torch.Tensor, name)
    return member if callable(member) else member.__get__


def _region() -> tuple[object, bool]:
    """Return the region that torch enters or exits by one function, and whether it exits."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != _GRAD_MODE:
        frame = frame.f_back
    region, leaves = None, False
    while frame is not None and frame.f_code.co_filename == _GRAD_MODE:
        region, leaves = frame.f_locals.get("self"), frame.f_code.co_name == "__exit__"
        frame = frame.f_back
    return region, leaves


_GRAD_MODE = torch.autograd.grad_mode.__file__
_SIZE = "torch.Tensor.size"
