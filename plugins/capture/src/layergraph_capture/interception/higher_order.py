"""Calls of torch's higher-order functions: each function argument becomes a body of the graph.

The tracer runs and records each function on sample arguments: both branches of ``torch.cond`` on
the operands, the function of ``vmap`` on one item of the batch. Then torch makes the call itself,
unrecorded, and its result becomes a value of the graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch._functorch import vmap
from torch._ops import HigherOrderOperator
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from layergraph.errors import CaptureError
from layergraph.ir.function_name import FunctionName
from layergraph.torch2ir.tracing.lines import code_place
from layergraph.torch2ir.tracing.module_call import FunctionRead, TracedValue
from layergraph.torch2ir.tracing.patches import Patch, Patcher
from layergraph_capture.arguments import tensors_in
from layergraph_capture.interception.applied import is_function
from layergraph_capture.trackers.tensors import holds_no_tensor, versions

if TYPE_CHECKING:
    from layergraph_capture.tracer import EagerTracer

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class _Sample:
    """A function argument, and the sample arguments to record it on.

    Attributes:
        name: the name of the body.
        function: the function.
        args: the sample arguments.
    """

    name: str
    function: Function
    args: Sequence[Any]


@dataclass(frozen=True, slots=True)
class _Plan:
    """The plan of a node for a call.

    Attributes:
        args: the positional arguments of the node, with a sample in place of each body.
        kwargs: the keyword arguments of the node.
        run: the arguments for this call, if they differ from the model's; else None.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    run: tuple[tuple[Any, ...], dict[str, Any]] | None = None


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
        if name not in _PLANS and name not in _TRANSFORMS:
            raise CaptureError(f"{name}, which {_UNHELD[name.rpartition('.')[2]]}")
        if name == "torch.cond" and not isinstance(_argument(original, args, kwargs), torch.Tensor):
            # With a plain condition, torch calls one of the functions; trace into it.
            return original(*args, **kwargs)
        if name in _TRANSFORMS:
            return self._transformed(name, original, args, kwargs)
        if name.startswith(_AUTOGRAD):
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

        def plan(*given: Any) -> _Plan:
            chosen = {key: options.arguments[key] for key in _TRANSFORMS[name]}
            chosen["argnums"] = _counted(chosen["argnums"], len(given))
            sample = _Sample(name.rpartition(".")[2], options.arguments["func"], given)
            return _Plan((sample, *chosen.values(), given))

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
        planned: Callable[..., _Plan] | None = None,
    ) -> Any:
        tracer = self._tracer
        tracer.compare_state()
        plan: _Plan = tracer.unrecorded(planned or _PLANS[name], args, kwargs)
        lowered = tuple([self._literal(each) for each in plan.args])
        named = {key: self._literal(each) for key, each in plan.kwargs.items()}
        with torch._C.DisableTorchFunction():
            before = versions(args, kwargs)
        result = tracer.calls.attempt(name, _eagerly, (original, plan.run or (args, kwargs)), {})
        tracer.state.drew()
        value = tracer.recorder.call("function", name, lowered, named)
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
            lowered, named = tracer.to_literal(args), tracer.to_literal(kwargs)
            name = "layergraph.pullback"
            given = _eagerly, (function, (args, kwargs)), {}
            with tracer.switch.saved.meanwhile():
                found = tracer.calls.attempt(name, *given)
            node = tracer.recorder.call("function", name, (part, *lowered), named)
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
        samples: dict[int, _Sample] = {}
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
        given = [self._literal(samples.get(place, each)) for place, each in enumerate(args)]
        value = tracer.recorder.call("function", name, tuple(given), {})
        with torch._C.DisableTorchFunction():
            if type(result) in (list, tuple):
                tracer.guards.expect_length(value, len(result))
            return tracer.tensors.bound(result, value, before)

    def _watched(self, function: Function, place: int, samples: dict[int, _Sample]) -> Function:
        foreign = self._tracer.calls.foreign

        def call(*args: Any, **kwargs: Any) -> Any:
            if kwargs:
                raise CaptureError("an autograd.Function that calls a function by keywords")
            if place not in samples:
                samples[place] = _Sample("applied", function, _copied(args))
            foreign.inside += 1
            try:
                return function(*args)
            finally:
                foreign.inside -= 1

        return call

    def _literal(self, value: Any) -> Any:
        if isinstance(value, _Sample):
            return self._body(value)
        if isinstance(value, list | tuple) and any(isinstance(each, _Sample) for each in value):
            return tuple([self._literal(each) for each in value])
        return self._tracer.to_literal(value)

    def _body(self, sample: _Sample) -> FunctionRead:
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


def _parameters(sample: _Sample) -> tuple[str, ...]:
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


# --- plans ---


def _first(values: Any, dim: int = 0, index: int = 0) -> Any:
    """Return nested values with one slice of each tensor."""
    for tensor in pytree.tree_leaves(values):
        if not isinstance(tensor, torch.Tensor) or tensor.shape[dim] == 0:
            raise CaptureError(
                "a function of torch that runs over no slices, or over inputs other than tensors; "
                "capture it with at least one slice"
            )
    return pytree.tree_map(lambda each: each.select(dim, index), values)


def _cond(pred: Any, true_fn: Function, false_fn: Function, operands: Any = ()) -> _Plan:
    branches = (_Sample("true", true_fn, operands), _Sample("false", false_fn, operands))
    flat, spec = pytree.tree_flatten(operands)
    run = pred, _flat(true_fn, spec), _flat(false_fn, spec), tuple(flat)
    return _Plan((pred, *branches, operands), run=(run, {}))


def _switch(index: Any, branches: Sequence[Function], operands: Any = ()) -> _Plan:
    samples = [_Sample(f"branch_{n}", each, operands) for n, each in enumerate(branches)]
    flat, spec = pytree.tree_flatten(operands)
    run = index, tuple([_flat(each, spec) for each in branches]), tuple(flat)
    return _Plan((index, samples, operands), run=(run, {}))


def _while_loop(cond_fn: Function, body_fn: Function, carried_inputs: Any) -> _Plan:
    samples = _Sample("cond", cond_fn, carried_inputs), _Sample("body", body_fn, carried_inputs)
    return _Plan((*samples, carried_inputs))


def _map(f: Function, xs: Any, *args: Any) -> _Plan:
    return _Plan((_Sample("map", f, (_first(xs), *args)), xs, *args))


def _scan(combine_fn: Function, init: Any, xs: Any, **kwargs: Any) -> _Plan:
    first = _first(xs, kwargs.get("dim", 0))
    return _Plan((_Sample("combine", combine_fn, (init, first)), init, xs), kwargs)


def _associative_scan(combine_fn: Function, xs: Any, dim: int, *args: Any, **kwargs: Any) -> _Plan:
    first = _first(xs, dim)
    return _Plan((_Sample("combine", combine_fn, (first, first)), xs, dim, *args), kwargs)


def _vmap(
    func: Function,
    in_dims: Any,
    out_dims: Any,
    randomness: str,
    chunk_size: int | None,
    *args: Any,
    **kwargs: Any,
) -> _Plan:
    if kwargs:
        # Torch passes these whole to each call.
        of_args = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
        in_dims = (*of_args, *[None] * len(kwargs))
        func, args = _by_position(func, [*kwargs]), (*args, *kwargs.values())
    size, dims, flat, spec = vmap._process_batched_inputs(in_dims, args, func)
    if not size:
        raise CaptureError("vmap over an empty batch; capture it with at least one item")
    item = [
        each if dim is None else each.select(dim, 0) for each, dim in zip(flat, dims, strict=True)
    ]
    sample = _Sample("vmap", func, pytree.tree_unflatten(item, spec))
    return _Plan((sample, in_dims, out_dims, randomness, chunk_size, args))


def _grad(
    func: Function, argnums: Any, has_aux: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> _Plan:
    numbers = _counted(argnums, len(args))
    if kwargs:
        func, args = _by_position(func, [*kwargs]), (*args, *kwargs.values())
    return _Plan((_Sample("grad", func, args), numbers, has_aux, tuple(args)))


def _counted(argnums: Any, count: int) -> Any:
    """Return the numbers of arguments, counted from the first: a body may take more of them."""
    return pytree.tree_map(lambda number: number % count if count else number, argnums)


def _vjp(func: Function, *primals: Any, has_aux: bool = False) -> _Plan:
    return _Plan((_Sample("vjp", func, primals), primals, has_aux))


def _of_autograd(func: Function, inputs: Any, *args: Any, **kwargs: Any) -> _Plan:
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    return _Plan((_Sample("function", func, given), inputs, *args), kwargs)


def _jvp(
    func: Function, primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False
) -> _Plan:
    return _Plan((_Sample("jvp", func, primals), primals, tangents, strict, has_aux))


def _flat(function: Function, spec: pytree.TreeSpec) -> Function:
    """Return the function with flattened arguments."""
    return lambda *parts: function(*pytree.tree_unflatten(parts, spec))


def _by_position(function: Function, names: Sequence[str]) -> Function:
    """Return the function with its keyword arguments as last positional ones."""

    def call(*args: Any) -> Any:
        split = len(args) - len(names)
        return function(*args[:split], **dict(zip(names, args[split:], strict=True)))

    return call


_ATTENTION = (
    "runs functions on single numbers of tensors; call "
    "torch.nn.functional.scaled_dot_product_attention with a mask instead"
)
_UNHELD = {
    "create_block_mask": _ATTENTION,
    "create_mask": _ATTENTION,
    "flex_attention": _ATTENTION,
    "linearize": "returns a function; call torch.func.jvp instead",
}

# For each transform that returns a function, the options that its node states.
_TRANSFORMS = {
    "layergraph.jacfwd": ("argnums", "has_aux", "randomness"),
    "layergraph.jacrev": ("argnums", "has_aux", "chunk_size"),
}
# These take gradients of values that autograd has to save.
_AUTOGRAD = "torch.autograd.functional."

_PLANS: dict[str, Callable[..., _Plan]] = {
    "layergraph.grad": _grad,
    "layergraph.grad_and_value": _grad,
    "layergraph.jvp": _jvp,
    "layergraph.vjp": _vjp,
    "layergraph.vmap": _vmap,
    **{f"{_AUTOGRAD}{name}": _of_autograd for name in "hessian hvp jacobian jvp vhp vjp".split()},
    "torch._higher_order_ops.associative_scan": _associative_scan,
    "torch._higher_order_ops.map": _map,
    "torch._higher_order_ops.scan": _scan,
    "torch._higher_order_ops.switch": _switch,
    "torch.cond": _cond,
    "torch.while_loop": _while_loop,
}
