"""Capture without example inputs: the model runs on symbols."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import nn
from torch.fx.proxy import TracerBase
from torch.overrides import TorchFunctionMode

from layergraph.capturing import Capturer, CaptureRequest
from layergraph.errors import CaptureError
from layergraph.functions.names import method_of, places
from layergraph.functions.operations import OPERATIONS, computes
from layergraph.functions.table import FACTORIES, SIZED_METHODS
from layergraph.ir import Value, leaves
from layergraph.literals import UnknownValueError, to_graph_literal, to_plain_literal
from layergraph.torch2ir.indexing.leaves import assigned_states, is_changed, note_leaves
from layergraph.torch2ir.indexing.module_index import ModuleInfo
from layergraph.torch2ir.indexing.overrides import call_signature
from layergraph.torch2ir.results import opened
from layergraph.torch2ir.state.generators import without_draws
from layergraph.torch2ir.state.global_state import may_draw, may_layer_draw
from layergraph.torch2ir.tracing.applied_functions import applied_functions
from layergraph.torch2ir.tracing.called_functions import (
    open_code,
    refuse_change_of_constant,
    unnamed,
)
from layergraph.torch2ir.tracing.code_patches import named_functions
from layergraph.torch2ir.tracing.module_call import Parameter, StateRead, Trace
from layergraph.torch2ir.tracing.patches import ENTRIES, Patch
from layergraph.torch2ir.tracing.proxy import AttributeProxy, Proxy
from layergraph.torch2ir.tracing.refusals import autocast, questions_for_types
from layergraph.torch2ir.tracing.tracer import Tracer

# These facts of a parameter are known without inputs, and model code branches on them. Dtype and
# device are missing: a user may change them in the rebuilt model.
_KNOWN_OF_STATE = frozenset(
    {
        torch.Tensor.__len__,
        torch.Tensor.__repr__,
        torch.Tensor.dim,
        torch.Tensor.is_complex,
        torch.Tensor.is_floating_point,
        torch.Tensor.ndim.__get__,  # type: ignore[attr-defined]
        torch.Tensor.nelement,
        torch.Tensor.numel,
        torch.Tensor.requires_grad.__get__,  # type: ignore[attr-defined]
        torch.Tensor.shape.__get__,  # type: ignore[attr-defined]
        torch.Tensor.size,
        torch.Tensor.stride,
    }
)


class _FunctionMode(TorchFunctionMode):
    def __init__(self, tracer: SymbolicTracer) -> None:
        super().__init__()
        self._record = tracer.watch.off(tracer.seen)
        self._tracer = tracer

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _KNOWN_OF_STATE and isinstance(args[0], torch.Tensor):
            self._tracer.refuse_hidden(args[0])
            return func(*args, **(kwargs or {}))
        return self._record(func, args, kwargs or {})


class SymbolicTracer(Tracer, TracerBase):
    """One run of a model on symbols.

    It works for models whose Python code does not depend on values, and refuses all others.
    """

    hint = "capture it with example inputs: to_ir(model, args)"
    readable = frozenset({Proxy, AttributeProxy, torch.Tensor, nn.Parameter})

    def __init__(self, *known: Any) -> None:
        super().__init__(*known)
        # The original function of each patch on torch.
        self._replaced: dict[object, Callable[..., Any]] = {}
        self._trains = note_leaves(self.module_index)

    # --- running ---

    def run(self) -> Trace:
        """See :class:`Tracer`. Assignments of the model's code to its modules are refused."""
        trace = super().run()
        for change in self.changes:
            if not change.is_outside:
                raise change.refusal()
        return trace

    @contextmanager
    def watching(self) -> Iterator[None]:
        """See :class:`Tracer`."""
        with without_draws(self.generators), _FunctionMode(self):
            yield

    def decided(self, name: str, args: tuple[Value, ...], result: object) -> object:
        """See :class:`Tracer`."""
        self.expect(self.recorder.call("function", name, args, {}), result)
        return result

    def device_type(self, kind: str) -> Value:
        """See :class:`Tracer`."""
        return kind

    def unrecorded(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """See :class:`Tracer`."""
        thread, self._thread = self._thread, 0
        try:
            with torch._C.DisableTorchFunction():
                return function(*args, **kwargs)
        finally:
            self._thread = thread

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Return symbols for the required arguments; the others keep their defaults.

        A default such as None or a flag may decide a branch, so the rebuilt model accepts no other
        value for it.
        """
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        parameters = call_signature(self.module_index.root.module).parameters.values()
        fixable = True
        for each in parameters:
            if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
                continue
            if each.default is each.empty:
                value = self.recorder.value(each.name)
                by_name = each.kind is each.KEYWORD_ONLY
                self.parameters.append(Parameter(each.name, value, by_name=by_name))
                if by_name:
                    kwargs[each.name] = Proxy(value, self)
                else:
                    args.append(Proxy(value, self))
            else:
                fixable = fixable and self._fix(each)
        if not args and any(each.kind is each.VAR_POSITIONAL for each in parameters):
            raise CaptureError(f"the model takes any number of inputs; {self.hint}")
        # In a Python signature, parameters with defaults come last.
        self.parameters.sort(key=lambda parameter: len(parameter.default))
        return args, kwargs

    def _fix(self, parameter: inspect.Parameter) -> bool:
        """Fix a parameter at its default; return False if the default is no literal."""
        try:
            default = (to_plain_literal(parameter.default),)
        except UnknownValueError:
            return False
        value = self.recorder.value(parameter.name)
        by_name = parameter.kind is parameter.KEYWORD_ONLY
        self.parameters.append(Parameter(parameter.name, value, default, default, by_name))
        return True

    def patches(self) -> Iterator[Patch]:
        """See :class:`Tracer`."""
        yield from autocast(self.is_recording)
        yield from applied_functions(self, self.state_tensors.keys, self.named_function)
        # These check the types of their arguments before they call ``__torch_function__``.
        for holder, names in ((torch, FACTORIES), (torch.Tensor, SIZED_METHODS)):
            yield holder, ENTRIES, {n: self._given_proxies(getattr(holder, n)) for n in names}
        yield from named_functions(self)
        for members, name in places((torch.broadcast_shapes,)):
            yield members, name, self._given_proxies(members[name])

    def scope_patches(self, members: dict[str, Any]) -> Iterator[Patch]:
        """See :class:`Tracer`."""
        yield from questions_for_types(members, self.is_recording)

    def leaf(
        self,
        module_info: ModuleInfo,
        original: Callable[..., Any],  # noqa: ARG002 nothing is computed
        args: Any,
        kwargs: Any,
    ) -> object:
        """See :class:`Tracer`."""
        self.compare_state()
        if is_changed(module_info, self._trains) or assigned_states(module_info):
            self.refuse(f"a change of {module_info.path!r} that lasts for a call")
        value = self.recorder.call(
            "module", module_info.path, self.to_literal(args), self.to_literal(kwargs)
        )
        if may_layer_draw(type(module_info.module)):
            self.state.drew()
        return Proxy(value, self)

    def renamed(self, result: Any) -> Any:
        """See :class:`Tracer`."""
        if type(result) is tuple:
            return tuple([self.renamed(each) for each in result])
        if isinstance(result, Proxy) and not self.recorder.is_inside(result.node):
            return Proxy(self.recorder.call("same", "", (result.node,), {}), self)
        return result

    def passed(self, args: Any, kwargs: Any) -> Any:
        """See :class:`Tracer`."""
        return self._passed(args), self._passed(kwargs)

    def _passed(self, given: Any) -> Any:
        if isinstance(given, torch.Tensor):
            key = self.read(given)
            if isinstance(key, StateRead):
                return Proxy(self.recorder.call("state", key.key, (), {}), self)
        if type(given) in (tuple, list):
            return type(given)([self._passed(each) for each in given])
        if type(given) is dict:
            return {key: self._passed(each) for key, each in given.items()}
        return given

    def border(self, value: Any) -> Value:
        """See :class:`Tracer`: what a graph cannot hold is left out, for dataflow alone counts."""
        return to_graph_literal(value, self._read_at_border, self.readable)

    def _read_at_border(self, value: Any) -> Value:
        try:
            return self.read(value)
        except UnknownValueError:
            return None

    def returned(self, result: Any) -> Value:
        """See :class:`Tracer`."""
        given = result, lambda each: each if isinstance(each, Proxy) else None
        return super().returned(self.unrecorded(opened, given, {}))

    def _given_proxies(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.is_recording() and _holds_proxies(args, kwargs):
                return self.torch_function(function, args, kwargs)
            return function(*args, **kwargs)

        self._replaced[call] = function
        return call

    # --- recording ---

    def seen(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call, or make it if all its arguments are plain values."""
        if isinstance(func, OPERATIONS):
            if not computes(func):
                return func(*args, **kwargs)
            func = (method_of(func) if len(args) > 1 or kwargs else None) or func
        elif isinstance(func, type) and not _holds_proxies(args, kwargs):
            return func(*args, **kwargs)
        return self.torch_function(func, args, kwargs)

    def torch_function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of a function of torch, or of a plugin."""
        # Torch looks methods up by name, and so finds our patch.
        name = self.functions.name_of(self._replaced.get(func, func))
        if name is None:
            raise CaptureError(unnamed(func))
        try:
            return self.function(name, args, kwargs, func)
        except CaptureError:
            code = open_code(func, args, kwargs)
            if code is None:
                raise
        with _FunctionMode(self):
            return code(*args, **kwargs)

    def higher_order(
        self,
        name: str,
        original: Callable[..., Any],  # noqa: ARG002 nothing is computed
        args: tuple[Any, ...],  # noqa: ARG002
        kwargs: dict[str, Any],  # noqa: ARG002
    ) -> Any:
        """See :class:`Tracer`."""
        raise CaptureError(f"{name}, which runs functions on tensors")

    def function(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], func: object = None
    ) -> Any:
        """Record a call of a function by its name."""
        self.compare_state()
        if may_draw(name, func):
            # Symbols draw nothing; tell the state tracker that the real model draws here.
            self.state.drew()
        literals = self.to_literal(args)
        refuse_change_of_constant(name, literals)
        return Proxy(self.recorder.call("function", name, literals, self.to_literal(kwargs)), self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *_: Any) -> Any:
        """Record an operation of fx's proxies, such as a Python operator."""
        if kind != "call_function":
            raise CaptureError(f"{target!r} is no operation that a graph can hold")
        return self.torch_function(target, args, kwargs)

    def keys(self, _obj: Any) -> NoReturn:
        """Refuse to unpack a value as a dict."""
        raise CaptureError("the model reads the keys of a value, which are unknown without inputs")

    def read(self, value: Any) -> Value:
        """See :class:`Tracer`."""
        if isinstance(value, Proxy):
            return value.node
        if isinstance(value, torch.Tensor):
            self.refuse_hidden(value)
            key = self.state_tensors.keys.get(id(value))
            return self.state_tensors.constant(value) if key is None else StateRead(key)
        raise UnknownValueError(f"{value!r}, a {type(value).__name__}")

    def refuse_hidden(self, tensor: torch.Tensor) -> None:
        """Refuse a read of a hidden state, because each call of the model replaces it."""
        key = self.hidden.get(id(tensor))
        if key is not None:
            raise CaptureError(
                f"the model reads {key}, a hidden state, which depends on inputs of earlier calls"
            )


def _holds_proxies(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return any(isinstance(each, Proxy) for each in leaves(args, kwargs))


class SymbolicCapturer(Capturer):
    """Capturer without example inputs."""

    def __init__(self, request: CaptureRequest) -> None:
        self._request = request

    def tracer(self) -> SymbolicTracer:
        """See :class:`Capturer`."""
        request = self._request
        return SymbolicTracer(request.module_index, request.keys, request.memory, request.functions)
