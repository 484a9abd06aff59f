"""Calls of functions that have a name: each is recorded as one node."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from layergraph.capturing import Values
from layergraph.errors import CaptureError
from layergraph.ir import Value
from layergraph.ir.function_name import FunctionName
from layergraph.ir.values import leaves
from layergraph.tensors.state import UnrunnableError
from layergraph.torch2ir.state.global_state import may_draw
from layergraph.torch2ir.tracing.called_functions import (
    CHANGING,
    changes_its_first_argument,
    open_code,
    refuse_change_of_constant,
)
from layergraph.torch2ir.tracing.lines import code_place
from layergraph.torch2ir.tracing.module_call import TracedValue
from layergraph_capture.arguments import tensors_in
from layergraph_capture.interception.saved_tensors import GRAD
from layergraph_capture.loops.turns import TurnPatches
from layergraph_capture.trackers.snapshot import StateSnapshot
from layergraph_capture.trackers.tensors import holds_no_tensor, versions

if TYPE_CHECKING:
    from layergraph_capture.tracer import EagerTracer

# Their results share memory with the argument, but not its version counter.
_SHARING = frozenset({"torch.Tensor.data", "torch.Tensor.detach", "torch.detach"})


class FunctionCalls:
    """Makes and records calls of functions.

    Args:
        run: the tracer.
        snapshot: saves tensors before a function may change them.
        turns: makes symbolic iteration numbers of loops; None if these are plain.
        values: the treatment of code that depends on a number in a tensor.
    """

    def __init__(
        self,
        run: EagerTracer,
        snapshot: StateSnapshot,
        turns: TurnPatches | None,
        values: Values,
    ) -> None:
        self._run = run
        self._snapshot = snapshot
        self._turns = turns
        self._values = values

    def call(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make and record a call of a function with a name."""
        run = self._run
        run.compare_state()
        if type(name) is FunctionName:
            name.where = code_place()
        problem = ""
        try:
            literals, named = run.to_literal(args), run.to_literal(kwargs) if kwargs else {}
            refuse_change_of_constant(name, literals)
        except CaptureError as error:
            self._stop_before_kernel(name, error)
            other = self._other_call(name, func, args, kwargs)
            if other is not None:
                return other()
            problem, literals, named = str(error), (), {}
        self._keep_saved(name)
        before = versions(args, kwargs)
        is_changing = changes_its_first_argument(str(name)) or any(
            # Compare by identity, because == would read the tensor.
            kwargs[each] is not None and kwargs[each] is not False
            for each in CHANGING & kwargs.keys()
        )
        if is_changing or name in _SHARING:
            run.unrecorded(self._snapshot.save, (*args, *kwargs.values()), {})
        result = run.calls.attempt(name, run.switch.saved.lean(func), args, kwargs, problem)
        if result is NotImplemented:
            # Python asks the other operand next; this depends on types only, so there is nothing to
            # record.
            return result
        if may_draw(name, func):
            run.state.drew()
        if problem:
            run.refuse(problem)
        is_sequence = type(result) in (list, tuple)
        # For an empty sequence, the graph needs the value to guard its length.
        if result is not None and holds_no_tensor(result) and (result or not is_sequence):
            return self._plain_result(name, args, literals, named, result)
        value = run.recorder.call("function", name, literals, named)
        # Writes into running statistics do not increase version counters.
        run.guards.changes_state |= name.endswith(("batch_norm", "instance_norm"))
        if is_sequence:
            run.guards.expect_length(value, len(result))
        run.guards.note_changes(args, before, (literals, named), is_known=is_changing)
        bound = run.tensors.bound(result, value, before)
        return bound if self._turns is None else self._turns.parts(bound)

    def _other_call(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], Any] | None:
        """Return what to do in place of a call that a graph cannot hold; None if nothing is known.

        It is the same call with tensors in place of arrays, or the code of the function.
        """
        run = self._run
        other = run.arrays.as_tensors(name, func, args, kwargs)
        if other is not None:
            return partial(self.call, *other, kwargs)
        code = open_code(func, args, kwargs)
        if code is None:
            return None

        def opened() -> Any:
            with run.function_mode():
                return code(*args, **kwargs)

        return opened

    def _keep_saved(self, name: str) -> None:
        if name == GRAD:
            self._run.backward.keep_saved()

    def _stop_before_kernel(self, name: str, error: CaptureError) -> None:
        """Raise if a kernel would read a tensor without memory, which would crash the process."""
        if isinstance(error, UnrunnableError):
            self._run.refusals.failed(name, error)
            raise error

    def _plain_result(
        self,
        name: str,
        given: tuple[Any, ...],
        args: tuple[Value, ...],
        kwargs: dict[str, Value],
        result: Any,
    ) -> Any:
        """Return the result of a function without tensors: symbolic numbers, or a decision."""
        run = self._run
        if not any(isinstance(leaf, TracedValue) for leaf in leaves(args, kwargs)):
            return result
        is_of_sizes = (
            not kwargs
            and _are_numbers(result)
            and not any(True for _ in tensors_in(given))
            and (isinstance(result, tuple) or not any(map(_is_nested, given)))
        )
        if is_of_sizes:
            return run.sizes.of_call(name, given, args, result)
        if type(result) is bool and self._values == "both":
            return run.decisions.result(name, args, kwargs, result)
        run.guards.expect_call(name, args, run.to_literal(result), kwargs)
        return result


def _are_numbers(result: Any) -> bool:
    inside = result if isinstance(result, tuple) else (result,)
    return all(type(each) is int or type(each) is float for each in inside)


def _is_nested(value: Any) -> bool:
    return isinstance(value, tuple | list | dict)
