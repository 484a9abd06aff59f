"""What model code asks of tensors while it runs: sizes, dtypes, devices, and their very numbers."""

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


# What numbers leave torch by, so that torch does not see what becomes of them.
_LEAVING = ("numpy", "__array__", "data_ptr", "__dlpack__", "untyped_storage", "storage")

# What tells numbers that are in a tensor.
DATA_DEPENDENT_OPS: frozenset[Any] = frozenset(
    {
        torch.is_nonzero,
        torch._assert,
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

# What is the same for all that a graph works on, or what it has to be free to change.
_UNASKED = (
    "__repr__ _version get_device is_mkldnn is_nested is_quantized is_sparse is_sparse_csr layout"
).split()
# Whether there are numbers at all, and whether gradients can ever be computed.
_KINDS = ("is_inference", "is_meta")
# By the name of a question, the kind of device that it asks for.
_DEVICES = {f"is_{kind}": kind for kind in "cpu cuda ipu mps mtia vulkan xpu".split()}


class Queries:
    """Answers what code asks of tensors, and records what the graph depends on by that.

    Args:
        recorder: writes down what is read.
        tensors: knows which tensor is which value.
        sizes: makes symbolic numbers.
        devices: knows which device is that of which tensor.
        guards: writes down what the graph depends on.
        switch: calls something without recording it.
        snapshot: keeps the tensors of the model that may be changed.
        refuse: notes that something cannot be carried over.
        to_literal: gives the plain form of what a function is given.
        values: what to do where code decides by a number that it reads out of a tensor.
        decisions: answers the questions that have two ways.
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
        # The regions whose first call told what was before, by the ``id`` of their contexts.
        self._regions: dict[int, tuple[object, TracedValue]] = {}

    def table(self) -> dict[Any, Query]:
        """The query for each function that asks something of a tensor."""
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
        """Sizes or strides, which know where they are from."""
        answer = self._answer(func, args, kwargs)
        value = self._known(args[0])
        if not isinstance(value, TracedValue):
            return answer
        if not isinstance(answer, int):
            # The guard comes first: a tensor of another rank does not have these sizes.
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
        """How many numbers there are."""
        answer = self._answer(func, args, kwargs)
        value = self._known(args[0])
        if not isinstance(value, TracedValue):
            return answer
        late = self._recorder.late()
        return self._sizes.late(answer, late, "torch.Tensor.numel", value)

    def length(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The first size, of which Python makes an int without an origin."""
        answer = self._answer(func, args, kwargs)
        value = self._known(args[0])
        if isinstance(value, TracedValue):
            self._guards.expect_call(_SIZE, (value, 0), answer)
        return answer

    # --- kinds ---

    def rank(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The number of dimensions: that of the inputs decides it."""
        self._rank_of(args[0])
        return self._answer(func, args, kwargs)

    def _rank_of(self, tensor: torch.Tensor) -> None:
        """Note that code depends on the rank of a tensor."""
        self._note("rank")
        value = self._known(tensor)
        is_inside = isinstance(value, TracedValue) and self._recorder.is_inside(value)
        is_by_sizes = is_inside and self._ranks.follows_from_sizes(value)
        # Where a size was answered, it may not be the rank that the tensor has for that size.
        if is_by_sizes or self._decisions.is_size_forced:
            rank = self._answer(torch.Tensor.dim, (tensor,), {})
            self._guards.expect_call("torch.Tensor.dim", (value,), rank)

    def dtype(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A dtype: that of the inputs decides it, or that of what a layer gives."""
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
        """A device, which knows whose it is."""
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
        """Answer whether a tensor is on a kind of device, and guard that."""
        answer: bool = self._answer(func, args, kwargs)
        self._guards.expect_device(self._known(args[0]), kind, answer)
        return answer

    def gradients(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Whether there will be gradients."""
        value = self._known(args[0])
        requires = torch.Tensor.requires_grad.__get__  # type: ignore[attr-defined]
        self._guards.expect_call(
            "torch.Tensor.requires_grad", (value,), self._answer(requires, args[:1], {})
        )
        return self._answer(func, args, kwargs)

    def kind(self, target: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Answer, and guard, a question that tensors of one kind answer alike."""
        answer = self._answer(func, args, kwargs)
        self._guards.expect_call(target, (self._known(args[0]),), answer)
        return answer

    def text(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A number as text; without a format it is printed, and no code decides by that.

        Code makes keys of whole numbers: ``self.experts[f"expert_{index}"]``.
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
        """What needs no note."""
        return self._answer(func, args, kwargs)

    def grad_mode(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A region without gradients, or with them."""
        region, leaves = _region()
        known = self._regions.pop(id(region), None) if leaves else None
        given: Value = args[0] if known is None else known[1]
        value = self._recorder.call("function", "layergraph.set_grad_enabled", (given,), {})
        if region is not None and not leaves:
            # Its first call tells what was before.
            self._regions.setdefault(id(region), (region, value))
        self._decisions.is_in_region = region is None or bool(self._regions)
        return self._answer(func, args, kwargs)

    # --- numbers ---

    def number(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A number out of a tensor."""
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
        """All numbers of a tensor."""
        answer = self._answer(func, args, kwargs)
        self._read_out(args[0], "torch.Tensor.tolist", answer)
        return answer

    def truth(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Whether a tensor is true."""
        answer: bool = self._answer(func, args, kwargs)
        return self._decided(args[0], answer) if self._may_read(args[0]) else answer

    def _decided(self, tensor: torch.Tensor, answer: bool) -> bool:
        value = self._known(tensor)
        if self._values == "both":
            return self._decisions.truth(value, answer)
        self._guards.expect_truth(value, answer)
        return answer

    def claim(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What is asserted: where it is no tensor, it was noted when it was compared."""
        if args and isinstance(args[0], torch.Tensor):
            given = (self._known(args[0]), code_place())
            self._recorder.call("function", "torch._assert", given, {})
        return self._answer(func, args, kwargs)

    def contains(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Whether a number is in a tensor."""
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
        """Whether what is read out of a tensor is to be assumed; it is refused if it may not be."""
        if self._tensors.is_fixed(self._known(tensor)):
            return False
        if self._values == "refuse":
            self._refuse(
                "a number that is read out of a tensor, by which the model may decide; convert "
                "with values='both', the default, to capture both ways"
            )
            return False
        return True

    def leaves_torch(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What leaves torch; who gets hold of memory may change it without a word."""
        self._answer(self._snapshot.save, args[:1], {})
        if not self._tensors.is_fixed(self._known(args[0])):
            self._refuse(
                f"what {func.__name__} gives: torch does not see what becomes of it outside"
            )
        return self._answer(func, args, kwargs)


def _function(name: str) -> Any:
    """A method of tensors, or what reads an attribute of them."""
    member = getattr(torch.Tensor, name)
    return member if callable(member) else member.__get__


def _region() -> tuple[object, bool]:
    """The region that torch is entering or leaving, and whether it is leaving: by one function."""
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
