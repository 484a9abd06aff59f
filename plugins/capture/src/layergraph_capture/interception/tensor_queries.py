"""Queries of tensors by model code: sizes, dtypes, devices and numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import torch

from layergraph.capturing import Values
from layergraph.ir import Value
from layergraph.literals import to_plain_literal
from layergraph.torch2ir.tracing.lines import code_place, user_frame
from layergraph.torch2ir.tracing.module_call import Fact, StateRead, TracedValue
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.interception.torch_modes import RecordingSwitch
from layergraph_capture.symbolic.sizes import Sizes
from layergraph_capture.trackers.devices import Devices, compared_kinds
from layergraph_capture.trackers.guards import Guards
from layergraph_capture.trackers.ranks import Ranks
from layergraph_capture.trackers.snapshot import StateSnapshot
from layergraph_capture.trackers.tensors import Tensors
from layergraph_capture.ways.decisions import ITEM, Decisions

Query = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


# Through these, numbers leave torch, and torch does not see their further use.
_LEAVING = ("numpy", "__array__", "data_ptr", "__dlpack__", "untyped_storage", "storage")

# Functions that read numbers in a tensor.
DATA_DEPENDENT_OPS: frozenset[Any] = frozenset(
    {
        torch.is_nonzero,
        torch._assert,
        torch._assert_async,
        *(
            getattr(torch.Tensor, name)
            for name in (
                *"__bool__ __complex__ __contains__ __float__ __format__ __index__ __int__".split(),
                *"is_nonzero item tolist".split(),
                *_LEAVING,
            )
        ),
    }
)

# Facts that are the same for all tensors of graphs, or that need no guard.
_UNASKED = (
    "__repr__ _version get_device is_mkldnn is_nested is_quantized is_sparse is_sparse_csr layout"
).split()
# Whether the tensor has numbers, and whether it can ever have gradients.
_KINDS = ("is_inference", "is_meta")
# The device type that each query asks for.
_DEVICES = {f"is_{kind}": kind for kind in "cpu cuda ipu mps mtia vulkan xpu".split()}


class Queries:
    """Answers queries of tensors, and records the guards for the answers.

    Args:
        recorder: records the reads.
        tensors: maps tensors to their values.
        sizes: makes symbolic numbers.
        devices: maps device objects to the tensors that they were read from.
        guards: records guards.
        switch: turns recording off for a call.
        snapshot: saves tensors of the model before they may change.
        refuse: records a refusal.
        to_literal: returns an argument as a literal.
        values: the treatment of code that depends on a number in a tensor.
        decisions: answers decisions.
    """

    def __init__(
        self,
        recorder: Recorder,
        tensors: Tensors,
        sizes: Sizes,
        devices: Devices,
        guards: Guards,
        switch: RecordingSwitch,
        snapshot: StateSnapshot,
        refuse: Callable[[str], None],
        to_literal: Callable[[Any], Any],
        values: Values,
        decisions: Decisions,
    ) -> None:
        self._recorder = recorder
        self._tensors = tensors
        self._known = tensors.read
        self._sizes = sizes
        self._devices = devices
        self._guards = guards
        self._answer = switch.unrecorded
        self._snapshot = snapshot
        self._refuse = refuse
        self._to_literal = to_literal
        self._values = values
        self._decisions = decisions
        self._ranks = Ranks()
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
            tensor.__bool__: self.truth,
            torch.is_nonzero: self.truth,
            tensor.is_nonzero: self.truth,
            tensor.tolist: self.numbers,
            tensor.__contains__: self.contains,
            torch._assert: self.claim,
            torch._assert_async: self.claim,
            tensor.grad.__get__: self.gradient,
            tensor.grad_fn.__get__: self.gradients,
            tensor.is_leaf.__get__: self.gradients,
            torch.is_inference: partial(self.kind, "torch.Tensor.is_inference"),
            tensor.__format__: self.text,
        }
        table |= dict.fromkeys((tensor.item, tensor.__int__, tensor.__float__), self.number)
        table |= dict.fromkeys((tensor.__index__, tensor.__complex__), self.number)
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
        for name in _LEAVING:
            table[getattr(tensor, name)] = self.leaves_torch
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
        is_by_sizes = is_inside and self._ranks.follows_from_sizes(value)
        # With a forced answer about a size, this rank may not be the rank for that size.
        if is_by_sizes or self._decisions.is_size_forced:
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

    def gradients(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer whether the tensor requires gradients."""
        value = self._known(args[0])
        requires = torch.Tensor.requires_grad.__get__  # type: ignore[attr-defined]
        self._guards.expect_call(
            "torch.Tensor.requires_grad", (value,), self._answer(requires, args[:1], {})
        )
        return self._answer(func, args, kwargs)

    def gradient(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer that a tensor which requires no gradients has none; refuse for other tensors."""
        answer = self._answer(func, args, kwargs)
        requires = torch.Tensor.requires_grad.__get__  # type: ignore[attr-defined]
        if answer is not None or self._answer(requires, args[:1], {}):
            self._refuse("'grad' of a tensor that requires gradients; pass it as an argument")
        else:
            self.gradients(requires, args, kwargs)
        return answer

    def kind(self, target: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer and guard a query whose answer depends only on the kind of tensor."""
        answer = self._answer(func, args, kwargs)
        self._guards.expect_call(target, (self._known(args[0]),), answer)
        return answer

    def text(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer with a number as text, and guard it if it is formatted.

        Code makes keys of integers: ``self.experts[f"expert_{index}"]``. A text without a format is
        for printing, and code does not branch on it.
        """
        if args[1] or self._is_whole_number(args[0]):
            return self.number(func, args, kwargs)
        return self._answer(func, args, kwargs)

    def _is_whole_number(self, tensor: torch.Tensor) -> bool:
        known = partial(self._answer, kwargs={})
        return known(torch.Tensor.dim, (tensor,)) == 0 and not (
            known(torch.Tensor.is_floating_point, (tensor,))
            or known(torch.Tensor.is_complex, (tensor,))
        )

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

    # --- numbers ---

    def number(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer with a number of a tensor, such as ``item()``."""
        answer = self._answer(func, args, kwargs)
        if self._values == "both" and self._may_read(args[0]):
            if type(answer) is bool:
                return self._decided(args[0], answer)
            if func is torch.Tensor.item and type(answer) in (int, float):
                late = self._recorder.late()
                return self._sizes.late(answer, late, ITEM, self._known(args[0]))
        self._read_out(args[0], ITEM, self._answer(torch.Tensor.item, args[:1], {}))
        return answer

    def numbers(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer with all numbers of a tensor, such as ``tolist()``."""
        answer = self._answer(func, args, kwargs)
        self._read_out(args[0], "torch.Tensor.tolist", answer)
        return answer

    def truth(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer with the truth value of a tensor, a decision."""
        answer: bool = self._answer(func, args, kwargs)
        return self._decided(args[0], answer) if self._may_read(args[0]) else answer

    def _decided(self, tensor: torch.Tensor, answer: bool) -> bool:
        value = self._known(tensor)
        if self._values == "both":
            return self._decisions.truth(value, answer)
        self._guards.expect_truth(value, answer)
        return answer

    def claim(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer an assertion. A condition that is no tensor was guarded by its comparison."""
        if args and isinstance(args[0], torch.Tensor):
            given = (self._known(args[0]), code_place())
            self._recorder.call("function", "torch._assert", given, {})
        return self._answer(func, args, kwargs)

    def contains(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer whether a number is in a tensor."""
        answer: bool = self._answer(func, args, kwargs)
        name, given = "operator.contains", (self._known(args[0]), self._to_literal(args[1]))
        if self._values == "both" and self._may_read(args[0]):
            return self._decisions.result(name, given, {}, answer)
        self._read_out(args[0], name, answer, given[1])
        return answer

    def _read_out(self, tensor: torch.Tensor, name: str, answer: object, *rest: Value) -> None:
        if self._may_read(tensor):
            self._guards.expect_call(name, (self._known(tensor), *rest), to_plain_literal(answer))

    def _may_read(self, tensor: torch.Tensor) -> bool:
        """Return whether a number read from a tensor becomes a guard; refuse a forbidden read."""
        if self._tensors.is_fixed(self._known(tensor)):
            return False
        if self._values == "refuse":
            self._refuse(
                "a number that is read out of a tensor, on which the model may branch; convert "
                "with values='both', the default, to capture both ways"
            )
            return False
        return True

    def leaves_torch(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Refuse a function that exposes memory, because code outside torch may change it."""
        self._answer(self._snapshot.save, args[:1], {})
        if not self._tensors.is_fixed(self._known(args[0])):
            self._refuse(f"the result of {func.__name__}: torch does not see its use outside")
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
