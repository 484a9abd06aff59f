"""Calls of torch's higher-order functions: each function argument becomes a body of the graph.

The tracer runs and records each function on sample arguments: both branches of ``torch.cond`` on
the operands, the function of ``vmap`` on one item of the batch. Then torch makes the call itself,
unrecorded, and its result becomes a value of the graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import HigherOrderOperator
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from layergraph.control_flow.transforms import AUTOGRAD_FUNCTIONS
from layergraph.errors import CaptureError
from layergraph.ir.function_name import FunctionName
from layergraph.torch2ir.tracing.lines import code_place
from layergraph.torch2ir.tracing.module_call import FunctionRead, TracedValue
from layergraph.torch2ir.tracing.patches import Patch, Patcher
from layergraph.torch_versions import uncompiled_scans
from layergraph_capture.arguments import tensors_in
from layergraph_capture.interception.applied import is_function
from layergraph_capture.interception.plans import (
    PLANS,
    TRANSFORMS,
    UNHELD,
    Function,
    Plan,
    Sample,
    counted,
)
from layergraph_capture.trackers.tensors import holds_no_tensor, versions

if TYPE_CHECKING:
    from layergraph_capture.tracer import EagerTracer


class HigherOrderCalls:
    """Makes and records these calls.

    Args:
        tracer: the tracer.
    """

    def __init__(self, tracer: EagerTracer) -> None:
        self._tracer = tracer

    def call(
        self, name: str, original: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """See :meth:`EagerTracer.higher_order`."""
        tracer = self._tracer
        if name not in PLANS and name not in TRANSFORMS:
            raise CaptureError(f"{name}, which {UNHELD[name.rpartition('.')[2]]}")
        if name == "torch.cond" and not isinstance(_argument(original, args, kwargs), torch.Tensor):
            # With a plain condition, torch calls one of the functions; trace into it.
            return original(*args, **kwargs)
        if name in TRANSFORMS:
            return self._transformed(name, original, args, kwargs)
        if name in AUTOGRAD_FUNCTIONS:
            # These take gradients of values that autograd has to save.
            tracer.switch.saved.need()
        return self._recorded(name, original, args, kwargs)

    def _transformed(
        self, name: str, original: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Function:
        """Return the function that a transform returns; its calls are recorded."""
        options = inspect.signature(original).bind(*args, **kwargs)
        options.apply_defaults()

        def run(*given: Any) -> Any:
            return original(*args, **kwargs)(*given)

        def plan(*given: Any) -> Plan:
            chosen = {key: options.arguments[key] for key in TRANSFORMS[name]}
            chosen["argnums"] = counted(chosen["argnums"], len(given))
            sample = Sample(name.rpartition(".")[2], options.arguments["func"], given)
            return Plan((sample, *chosen.values(), given))

        def transformed(*given: Any) -> Any:
            if not self._tracer.is_recording():
                return run(*given)
            return self._recorded(name, run, given, {}, plan)

        return transformed

    def _recorded(
        self,
        name: str,
        original: Function,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        planned: Callable[..., Plan] | None = None,
    ) -> Any:
        tracer = self._tracer
        tracer.compare_state()
        plan: Plan = tracer.unrecorded(planned or PLANS[name], args, kwargs)
        literals = tuple([self._literal(each) for each in plan.args])
        named = {key: self._literal(each) for key, each in plan.kwargs.items()}
        with torch._C.DisableTorchFunction():
            before = versions(args, kwargs)
        result = tracer.calls.attempt(name, _eagerly, (original, plan.run or (args, kwargs)), {})
        tracer.state.drew()
        value = tracer.recorder.call("function", name, literals, named)
        if holds_no_tensor(result):
            return result
        with torch._C.DisableTorchFunction():
            if type(result) in (list, tuple):
                tracer.guards.expect_length(value, len(result))
            bound = tracer.tensors.bound(result, value, before)
        return self._with_pullback(bound, value) if name == "layergraph.vjp" else bound

    def _with_pullback(self, result: tuple[Any, ...], vjp: TracedValue) -> tuple[Any, ...]:
        """Return the result of ``vjp``, with a function whose calls are recorded."""
        tracer, (value, function, *aux) = self._tracer, result
        part = tracer.recorder.call("function", "operator.getitem", (vjp, 1), {})

        def pullback(*args: Any, **kwargs: Any) -> Any:
            if not tracer.is_recording():
                return function(*args, **kwargs)
            literals, named = tracer.to_literal(args), tracer.to_literal(kwargs)
            name = "layergraph.pullback"
            with tracer.switch.saved.meanwhile():
                found = tracer.calls.attempt(name, _eagerly, (function, (args, kwargs)), {})
            node = tracer.recorder.call("function", name, (part, *literals), named)
            with torch._C.DisableTorchFunction():
                return tracer.tensors.bound(found, node, {})

        return value, pullback, *aux

    def applied(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make and record a call of an autograd.Function that takes functions of the model.

        Its forward calls these, and the arguments of the first call are the sample.
        """
        tracer = self._tracer
        name = tracer.calls.name_of(function)
        if name is None or kwargs:
            raise CaptureError(f"{function.__self__.__qualname__}, which takes functions by name")  # type: ignore[attr-defined]
        samples: dict[int, Sample] = {}
        watched = [
            self._watched(each, place, samples) if is_function(each) else each
            for place, each in enumerate(args)
        ]
        tracer.compare_state()
        if isinstance(name, FunctionName):
            name.where = code_place()
        with torch._C.DisableTorchFunction():
            before = versions(args, {})
        result = tracer.calls.attempt(name, function, tuple(watched), {})
        missing = [
            each for place, each in enumerate(args) if is_function(each) and place not in samples
        ]
        if missing:
            tracer.refuse(
                f"{name}, an autograd.Function whose forward does not call {missing[0]!r}"
            )
            return result
        literals = [self._literal(samples.get(place, each)) for place, each in enumerate(args)]
        value = tracer.recorder.call("function", name, tuple(literals), {})
        with torch._C.DisableTorchFunction():
            if type(result) in (list, tuple):
                tracer.guards.expect_length(value, len(result))
            return tracer.tensors.bound(result, value, before)

    def _watched(self, function: Function, place: int, samples: dict[int, Sample]) -> Function:
        foreign = self._tracer.calls.foreign

        def call(*args: Any, **kwargs: Any) -> Any:
            if kwargs:
                raise CaptureError("an autograd.Function that calls a function by keywords")
            if place not in samples:
                samples[place] = Sample("applied", function, _copied(args))
            foreign.inside += 1
            try:
                return function(*args)
            finally:
                foreign.inside -= 1

        return call

    def _literal(self, value: Any) -> Any:
        if isinstance(value, Sample):
            return self._body(value)
        if isinstance(value, list | tuple) and any(isinstance(each, Sample) for each in value):
            return tuple([self._literal(each) for each in value])
        return self._tracer.to_literal(value)

    def _body(self, sample: Sample) -> FunctionRead:
        """Run a function on its sample arguments, and record its calls."""
        tracer, recorder = self._tracer, self._tracer.recorder
        scope = recorder.enter(recorder.scope.path, function=sample.name)
        scope.parameters = _parameters(sample)
        scope.args = tuple([recorder.value(each) for each in scope.parameters])
        copies = tracer.unrecorded(_copied, (sample.args,), {})
        model = tracer.module_index.root.module
        with torch._C.DisableTorchFunction():
            given = [
                tracer.tensors.bound(each, value, {})
                for each, value in zip(copies, scope.args, strict=True)
            ]
            for each, value in zip(copies, scope.args, strict=True):
                if not isinstance(each, torch.Tensor) and sample.name == "applied":
                    tracer.guards.expect(value, each)
            outside = [*tracer.tensors.living(), *model.parameters(), *model.buffers()]
            before = versions((*tensors_in(given), *outside), {})
        tracer.decisions.bodies += 1
        try:
            result = tracer.to_literal(sample.function(*given))
        finally:
            tracer.decisions.bodies -= 1
        with torch._C.DisableTorchFunction():
            after = versions((*tensors_in(given), *outside), {})
        if after != before:
            tracer.refuse(
                f"a function that changes in place a tensor from outside of it ({sample.name} of "
                "a function of torch); let it change a clone of the tensor"
            )
        recorder.leave(result)
        return FunctionRead(scope)


def _eagerly(function: Function, given: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    """Call a higher-order function of torch without compiling its function arguments.

    A compiler would see the patches of the capture.
    """
    args, kwargs = given
    patches: list[Patch] = [
        (torch, "compile", lambda function, **_: function),
        (HigherOrderOperator, "__call__", _in_python),
        *uncompiled_scans(),
    ]
    with Patcher(patches), _disable_current_modes():
        return function(*args, **kwargs)


_call_operator: Any = HigherOrderOperator.__call__


def _in_python(operator: HigherOrderOperator, /, *args: Any, **kwargs: Any) -> Any:
    """Call an operator by torch's generic Python implementation."""
    kernel = operator.py_kernels.get(torch._C.DispatchKey.CompositeExplicitAutograd)
    if kernel is None or torch._C._functorch.peek_interpreter_stack() is not None:
        return _call_operator(operator, *args, **kwargs)
    return kernel(*args, **kwargs)


def _argument(original: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the first argument of a call."""
    return args[0] if args else kwargs.get(next(iter(inspect.signature(original).parameters)))


def _parameters(sample: Sample) -> tuple[str, ...]:
    try:
        names = list(inspect.signature(sample.function).parameters)
    except (TypeError, ValueError):
        names = []
    count = len(sample.args)
    return (*names[:count], *["input"] * (count - len(names)))


def _copied(values: Sequence[Any]) -> list[Any]:
    """Return nested values with copies of their tensors, which in-place operations may change."""
    return [pytree.tree_map(_cloned, each) for each in values]


def _cloned(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf
