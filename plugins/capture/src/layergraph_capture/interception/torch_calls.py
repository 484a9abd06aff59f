"""Calls that torch's modes see: each goes to a query, to a node, or to a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from layergraph.capturing import Values
from layergraph.errors import CaptureError
from layergraph.functions.foreign import applied_class
from layergraph.functions.names import method_of
from layergraph.functions.operations import OPERATIONS, computes
from layergraph.torch2ir.tracing.called_functions import unnamed
from layergraph_capture.interception.applied import AppliedFunctions, is_function
from layergraph_capture.interception.number_queries import NumberQueries
from layergraph_capture.interception.set_data import REASON, SET_DATA, Assignments
from layergraph_capture.interception.tensor_queries import Query, TensorQueries
from layergraph_capture.interception.unnamed import UnnamedCalls, takes_sizes
from layergraph_capture.loops.list_slices import ListSlices
from layergraph_capture.trackers.run_trackers import RunTrackers

if TYPE_CHECKING:
    from layergraph_capture.tracer import EagerTracer

_AS_OPERATORS = {
    f"torch.Tensor.__{name}__": f"operator.{name}" for name in "getitem setitem pow".split()
}


class TorchCalls:
    """Makes the calls that torch's modes see.

    Args:
        run: the tracer; it records the calls of functions with a name.
        trackers: the trackers of the run.
        values: the treatment of code that depends on a number in a tensor.
        slices: notes the slices of lists that code passes to functions; None if no loop is looked
            for.
    """

    def __init__(
        self, run: EagerTracer, trackers: RunTrackers, values: Values, slices: ListSlices | None
    ) -> None:
        self._run = run
        self._tensors, self._snapshot = trackers.tensors, trackers.snapshot
        self._slices = slices
        self._queries: dict[Any, Query] = {
            **TensorQueries(run.recorder, trackers, run.switch, run.refuse).table(),
            **NumberQueries(run, trackers, values).table(),
            **run.backward.table(),
            **run.arrays.queries(),
        }
        self._unnamed = UnnamedCalls(
            run.recorder, trackers.tensors, run.switch, trackers.snapshot, run.refuse, self.attempt
        )
        self._assignments = Assignments(
            run.module_index, run.recorder, trackers.tensors, run.switch
        )
        self.foreign = AppliedFunctions(trackers.tensors, run.switch, run.refuse)

    def function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make and record a call of a function, a method, or the getter or setter of an attribute.

        Raises:
            CaptureError: a graph cannot hold the call, and the model cannot run on without it.
        """
        if self._slices is not None:
            self._slices.note_call(args)
        query = self._queries.get(func)
        if query is not None:
            return query(func, args, kwargs)
        run = self._run
        name = self.name_of(func)
        if name is not None:
            return run.function(name, func, args, kwargs)
        if func == _SET_REQUIRES_GRAD and not self._tensors.is_state(args[0]):
            return run.torch_function(torch.Tensor.requires_grad_, args, kwargs)
        if func == SET_DATA and self._assignments.copies(args[0], args[1], run.function_mode):
            return None
        return self._unnamed.call(func, args, kwargs)

    def name_of(self, func: Any) -> str | None:
        """Return the name under which a call of a function is recorded; None if it has none."""
        name = self._run.functions.name_of(func)
        return None if name is None else _AS_OPERATORS.get(name, name)

    def applied(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make and record a call of an autograd.Function."""
        self._run.unrecorded(self._snapshot.save, args, {})
        if any(map(is_function, args)):
            return self._run.higher_orders.applied(func, args, kwargs)
        return self._run.named_function(func, args, kwargs)

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make and record a call of an operation of :data:`torch.ops`."""
        if not computes(func):
            return func(*args, **kwargs)
        method = method_of(func) if args else None
        if method is None:
            return self._run.torch_function(func, args, kwargs)
        gave = self._run.torch_function(method, args, kwargs)
        # The method returns a Size or a tuple, the operation a list.
        return list(gave) if isinstance(gave, tuple) else gave

    def aten(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make and record a call that only torch's dispatcher sees."""
        if func is _LIFT_FRESH and self._tensors.is_new_made(args[0]):
            return self._tensors.fresh(func, args[0])
        name = self._run.functions.name_of(func)
        if name is None:
            reason = f"the operation {func}, which has no name in an IR"
            if isinstance(func, OPERATIONS):
                reason = unnamed(func)
            return self._unnamed.refused(reason, func, args, kwargs)
        if takes_sizes(func, args, kwargs):
            self._tensors.guard_shapes(args, kwargs)
        mode = self._unnamed.other_mode()
        if mode is None:
            return self._run.function(name, func, args, kwargs)
        was = self._run.region(_SET_GRAD, mode)
        try:
            return self._run.function(name, func, args, kwargs)
        finally:
            self._run.region(_SET_GRAD, was)

    def attempt(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        problem: str = "",
    ) -> Any:
        """Call a function without recording it, and record its error.

        Args:
            name: the function name to record an error under.
            function: the function.
            args: the positional arguments.
            kwargs: the keyword arguments.
            problem: the construct of the call that a graph cannot hold, if there is one.
        """
        run = self._run
        call = run.unrecorded if applied_class(function) is None else self.foreign.call
        try:
            return call(function, args, kwargs)
        except Exception as error:
            if problem and not isinstance(error, CaptureError):
                # The refused construct may be the cause of the error.
                run.refuse(problem)
            run.refusals.failed(name, error)
            raise

    def refuse_late_reads(self) -> None:
        """Refuse changes of memory that a graph does not see: by ``data``, or by an array."""
        self._run.arrays.refuse_changed()
        if self._assignments.are_read_later():
            self._run.refusals.add(f"{REASON} to one that is read later; assign a clone", "")


_SET_GRAD = "layergraph.set_grad_enabled"
_SET_REQUIRES_GRAD = torch.Tensor.requires_grad.__set__  # type: ignore[attr-defined]

# Torch calls this operation to make tensors from Python numbers. The tracer knows the origin of
# each number, because it has seen the reads of sizes and tensors.
_LIFT_FRESH = torch.ops.aten.lift_fresh.default
