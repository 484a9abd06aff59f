"""Queries of the numbers in tensors by model code."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from layergraph.capturing import Values
from layergraph.ir import Value
from layergraph.literals import to_plain_literal
from layergraph.torch2ir.tracing.lines import code_place
from layergraph.torch2ir.tracing.module_call import TracedValue
from layergraph_capture.interception.tensor_queries import Query
from layergraph_capture.symbolic.sizes import GETITEM
from layergraph_capture.trackers.run_trackers import RunTrackers
from layergraph_capture.ways.decisions import ITEM

if TYPE_CHECKING:
    from layergraph_capture.tracer import EagerTracer

# Through these, numbers leave torch, and torch does not see their further use.
_LEAVING = ("numpy", "__array__", "data_ptr", "__dlpack__", "untyped_storage", "storage")

_TOLIST = "torch.Tensor.tolist"
# The most numbers that one list holds as symbolic ones; a longer list is a guard.
_MOST_NUMBERS = 64

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


class NumberQueries:
    """Answers queries of numbers, as decisions, symbolic numbers or guards.

    Args:
        run: the tracer.
        trackers: the trackers of the run.
        values: the treatment of code that depends on a number in a tensor.
    """

    def __init__(self, run: EagerTracer, trackers: RunTrackers, values: Values) -> None:
        self._recorder = run.recorder
        self._known = trackers.tensors.read
        self._sizes = trackers.sizes
        self._guards = trackers.guards
        self._decisions = trackers.decisions
        self._snapshot = trackers.snapshot
        self._answer = run.switch.unrecorded
        self._refuse = run.refuse
        self._to_literal = run.to_literal
        self._values = values
        self._turns = run.turns

    def table(self) -> dict[Any, Query]:
        """Return the query for each function that reads numbers of a tensor."""
        tensor: Any = torch.Tensor
        return {
            tensor.__bool__: self.truth,
            torch.is_nonzero: self.truth,
            tensor.is_nonzero: self.truth,
            tensor.item: self.number,
            tensor.__int__: self.number,
            tensor.__float__: self.number,
            tensor.__index__: self.number,
            tensor.__complex__: self.number,
            tensor.tolist: self.numbers,
            tensor.__contains__: self.contains,
            tensor.__format__: self.text,
            torch._assert: self.claim,
            torch._assert_async: self.claim,
            **{getattr(tensor, name): self.leaves_torch for name in _LEAVING},
        }

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
        tensor = args[0]
        if self._values == "both" and self._is_short(tensor) and self._may_read(tensor):
            value = self._recorder.call("function", _TOLIST, (self._known(tensor),), {})
            listed = self._listed(value, answer)
            return listed if self._turns is None else self._turns.argument(listed)
        self._read_out(tensor, _TOLIST, answer)
        return answer

    def _listed(self, value: TracedValue, answer: Any) -> Any:
        """Return the numbers of a nested list as symbolic ones, and guard its lengths."""
        self._guards.expect_length(value, len(answer))
        late = self._recorder.late()
        return [
            self._listed(self._recorder.call("function", GETITEM, (value, index), {}), each)
            if isinstance(each, list)
            else self._sizes.late(each, late, GETITEM, value, index)
            for index, each in enumerate(answer)
        ]

    def _is_short(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor is a short list of numbers; truth values are guards."""
        known = partial(self._answer, args=(tensor,), kwargs={})
        return (
            known(torch.Tensor.dim) > 0
            and known(torch.Tensor.numel) <= _MOST_NUMBERS
            and not (tensor.dtype is torch.bool or tensor.dtype.is_complex)
        )

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
        if self._guards.is_fixed(self._known(tensor)):
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
        if not self._guards.is_fixed(self._known(args[0])):
            self._refuse(f"the result of {func.__name__}: torch does not see its use outside")
        return self._answer(func, args, kwargs)

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
