"""Capture without inputs: the model runs on symbols, which record what is done to them.

The symbols are proxies of torch.fx. Unlike its own tracer, this one sees every torch function, also
one that is called on tensors alone (a parameter's ``exp()``, ``torch.randn``), so that nothing is
computed at capture time and baked in; it refuses what symbols would answer wrongly in silence; and
it neither recurses over the model nor changes it.
"""

from __future__ import annotations

import functools
import inspect
import linecache
import os
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from torch.fx.proxy import TracerBase
from torch.overrides import TorchFunctionMode

from layergraph.errors import CaptureError, first_line
from layergraph.functions import FACTORIES, SIZED_METHODS, Functions
from layergraph.ir import Value as Plain
from layergraph.ir import leaves
from layergraph.state import Memory
from layergraph.symbols import UnknownValueError, lower
from layergraph.torch2ir.calls import Recorder, Scope, StateRead
from layergraph.torch2ir.guards import guards, unchanged
from layergraph.torch2ir.patches import Patch, patched, with_room_for
from layergraph.torch2ir.proxy import Proxy
from layergraph.torch2ir.survey import Survey, Surveyed

# What a parameter says of itself is known without inputs, and model code decides by it. Its dtype
# and device are not among these: they are those of the rebuilt model, when it runs.
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

# Captures in several threads would put back what another one has replaced.
_ONE_AT_A_TIME = threading.RLock()

_HINT = "example inputs will be the way to capture this"


@dataclass(slots=True)
class Trace:
    """What one run on symbols recorded.

    Attributes:
        root: the call of the model.
        constants: tensors that the model reads but has not registered, by key.
    """

    root: Scope
    constants: dict[str, torch.Tensor]


def trace(survey: Survey, keys: dict[int, str], memory: Memory, functions: Functions) -> Trace:
    """Run a model on symbols.

    Args:
        survey: the model.
        keys: the state-dict key of each of its tensors, by ``id``.
        memory: where these lie.
        functions: the functions that may become nodes.

    Raises:
        CaptureError: the model does what needs inputs to be decided, or what a graph cannot hold.
    """
    tracer = _Tracer(survey, keys, memory, functions)
    with_room_for(survey.depth, tracer.run)
    return Trace(tracer.recorder.root, tracer.constants)


class _FunctionMode(TorchFunctionMode):
    def __init__(self, tracer: _Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _KNOWN_OF_STATE and isinstance(args[0], torch.Tensor):
            return func(*args, **(kwargs or {}))
        return self._tracer.torch_function(func, args, kwargs or {})


class _Tracer(TracerBase):
    def __init__(
        self, survey: Survey, keys: dict[int, str], memory: Memory, functions: Functions
    ) -> None:
        self.recorder = Recorder()
        self.constants: dict[str, torch.Tensor] = {}
        self._survey = survey
        self._keys = dict(keys)
        self._memory = memory
        self._functions = functions
        self._thread = 0

    # --- running ---

    def run(self) -> None:
        """Run the model, and leave it as it was."""
        self._thread = threading.get_ident()
        model = self._survey.root.module
        args, kwargs = self._inputs(model)
        with (
            _ONE_AT_A_TIME,
            unchanged(self._survey),
            patched(self._patches()),
            _FunctionMode(self),
        ):
            try:
                model(*args, **kwargs)
            except CaptureError as error:
                if error.__cause__ is not None:
                    raise
                raise CaptureError(self._located(error, str(error))) from error
            except Exception as error:
                reason = f"{type(error).__name__}: {first_line(error)}"
                raise CaptureError(self._located(error, reason)) from error

    def _located(self, error: BaseException, reason: str) -> str:
        frames = traceback.extract_tb(error.__traceback__)
        of_others = [frame for frame in frames if not frame.filename.startswith(_OWN)]
        of_model = [frame for frame in of_others if not frame.filename.startswith(_TORCH)]
        module = repr(self.recorder.scope.path) if self.recorder.scope.path else "the model"
        # A layer of torch may be the whole model.
        return f"in {module}, {_place(of_model or of_others or frames)}: {reason}; {_HINT}"

    def _inputs(self, model: nn.Module) -> tuple[list[Proxy], dict[str, Proxy]]:
        args: list[Proxy] = []
        kwargs: dict[str, Proxy] = {}
        parameters = inspect.signature(model.forward).parameters
        for name, parameter in parameters.items():
            if parameter.default is not parameter.empty:
                # The model is captured as it is called without: what a None or a flag would have
                # decided is decided, and the rebuilt model does not take another.
                continue
            if parameter.kind is parameter.KEYWORD_ONLY:
                kwargs[name] = Proxy(self.recorder.value(name), self)
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                args.append(Proxy(self.recorder.value(name), self))
        any_number = any(each.kind is each.VAR_POSITIONAL for each in parameters.values())
        if any_number and not args:
            raise CaptureError(f"the model takes any number of inputs; {_HINT}")
        return args, kwargs

    def _patches(self) -> Iterator[Patch]:
        yield nn.Module, "__call__", self._module_call(nn.Module.__call__)
        yield nn.Module, "training", self._training()
        yield from guards(self._survey, self._is_here)
        # These look at the types of their arguments before they tell anybody of the call.
        for holder, names in ((torch, FACTORIES), (torch.Tensor, SIZED_METHODS)):
            for name in names:
                yield holder, name, self._given_proxies(getattr(holder, name))
        for function in self._functions.loaded.values():
            home = getattr(function, "__globals__", {})
            name = getattr(function, "__name__", "")
            if home.get(name) is function:
                yield home, name, self._whole(function)

    def _is_here(self) -> bool:
        return threading.get_ident() == self._thread

    def _module_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
            surveyed = self._survey.get(module) if self._is_here() else None
            if surveyed is None:
                # Not one of the model's: a module that its code made on the way, or the inside of
                # a leaf. What it does belongs to the caller.
                return original(module, *args, **kwargs)
            if surveyed.is_leaf and surveyed is not self._survey.root:
                value = self.recorder.call(
                    "module", surveyed.path, self._lower(args), self._lower(kwargs)
                )
                return Proxy(value, self)
            return self._scoped(surveyed, original, args, kwargs)

        return call

    def _scoped(
        self,
        surveyed: Surveyed,
        original: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        # The arguments belong to the caller, so that they are read before the call begins.
        args, kwargs = self._symbols(args), self._symbols(kwargs)
        lowered = self._lower(args), self._lower(kwargs)
        is_root = surveyed is self._survey.root
        scope = self.recorder.root if is_root else self.recorder.enter(surveyed.path)
        scope.args, scope.kwargs = lowered
        cls: Any = type(surveyed.module)
        scope.parameters = _parameters(cls)
        result = self._own(original(surveyed.module, *args, **kwargs))
        self.recorder.leave(self._lower(result))
        return result

    def _own(self, result: Any) -> Any:
        """What a module returns, with values of its own also where it returns what it was given.

        Then who reads the result is seen to read the module's, even that of one that does nothing.
        """
        if type(result) is tuple:
            return tuple([self._own(each) for each in result])
        if isinstance(result, Proxy) and not self.recorder.is_inside(result.node):
            return Proxy(self.recorder.call("same", "", (result.node,), {}), self)
        return result

    def _symbols(self, given: Any) -> Any:
        """Arguments in which tensors of the caller have become values that are passed in."""
        if isinstance(given, torch.Tensor):
            key = self._read(given)
            if isinstance(key, StateRead):
                return Proxy(self.recorder.call("state", key.key, (), {}), self)
        if type(given) in (tuple, list):
            return type(given)([self._symbols(each) for each in given])
        if type(given) is dict:
            return {key: self._symbols(each) for key, each in given.items()}
        return given

    def _given_proxies(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._is_here() and any(isinstance(x, Proxy) for x in leaves(args, kwargs)):
                return self.torch_function(function, args, kwargs)
            return function(*args, **kwargs)

        return call

    # --- recording ---

    def torch_function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of a function of torch, or of a plugin."""
        name = self._functions.name_of(func)
        if name is None:
            raise CaptureError(_unnamed(func))
        return self.function(name, args, kwargs)

    def function(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of a function by its name."""
        lowered = self._lower(args)
        if _changes_its_first_argument(name) and lowered and _is_constant(lowered[0]):
            raise CaptureError(
                f"{name} changes a tensor that the model has not registered; "
                "register it with register_buffer"
            )
        return Proxy(self.recorder.call("function", name, lowered, self._lower(kwargs)), self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *_: Any) -> Any:
        """Record what fx's proxies do: the operators of Python, by function."""
        if kind != "call_function":
            raise CaptureError(f"{target!r} is nothing that a graph can do to a value")
        return self.torch_function(target, args, kwargs)

    def iter(self, _obj: Any) -> NoReturn:
        """Refuse to loop over a value."""
        raise CaptureError("the model loops over a value: how often is only told by inputs")

    def keys(self, _obj: Any) -> NoReturn:
        """Refuse to unpack a value as a dict."""
        raise CaptureError("the model asks a value for its keys, which only inputs would tell")

    def _lower(self, value: Any) -> Any:
        try:
            return lower(value, self._read)
        except UnknownValueError as error:
            raise CaptureError(f"a graph cannot hold {error}") from None

    def _read(self, value: Any) -> Plain:
        if isinstance(value, Proxy):
            return value.node
        if isinstance(value, torch.Tensor):
            key = self._keys.get(id(value))
            if key is None:
                key = self._constant(value)
            return StateRead(key)
        raise UnknownValueError(f"{value!r}, a {type(value).__name__}")

    def _constant(self, tensor: torch.Tensor) -> str:
        if isinstance(tensor, nn.Parameter):
            raise UnknownValueError(
                "a parameter that is not registered in the model, so that no state dict has it"
            )
        key = f":constant_{len(self.constants)}"
        self._memory.claim(tensor, "a tensor that the model has not registered")
        self._keys[id(tensor)] = key
        self.constants[key] = tensor
        return key

    # --- what symbols cannot answer ---

    def _training(self) -> property:
        def get(module: nn.Module) -> bool:
            value: bool = module.__dict__["training"]
            surveyed = self._survey.get(module) if self._is_here() else None
            if surveyed is not None and not surveyed.is_leaf:
                where = _place(traceback.extract_stack(limit=3)[:-1])
                self.recorder.call("mode", surveyed.path, (value,), {}, where)
            return value

        def put(module: nn.Module, value: bool) -> None:
            module.__dict__["training"] = value

        return property(get, put)

    def _whole(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._is_here():
                return function(*args, **kwargs)
            return self.torch_function(function, args, kwargs)

        return call


@functools.cache
def _parameters(cls: type[nn.Module]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(cls.forward).parameters)[1:]
    except (TypeError, ValueError):
        return ()


def _changes_its_first_argument(name: str) -> bool:
    last = name.rpartition(".")[2]
    if last.endswith("__") or name.startswith("operator."):
        last = last.strip("_")
        return last in ("setitem", "delitem") or (
            last[0] == "i" and last not in ("invert", "index")
        )
    return last.endswith("_") and not last.startswith("_")


def _is_constant(lowered: Plain) -> bool:
    return isinstance(lowered, StateRead) and lowered.key.startswith(":")


def _unnamed(function: Any) -> str:
    name = getattr(function, "__qualname__", None) or repr(function)
    if name == "_set_grad_enabled":
        return "a graph cannot hold a region without gradients, or with them switched on again"
    return (
        f"the function {getattr(function, '__module__', None) or 'torch'}.{name} has no name in an "
        "IR; a plugin can give it one through the hook 'functions'"
    )


_OWN = f"{Path(__file__).parents[1]}{os.sep}"
_TORCH = f"{Path(torch.__file__).parent}{os.sep}"


def _place(frames: Sequence[traceback.FrameSummary]) -> str:
    frame = frames[-1]
    line = linecache.getline(frame.filename, frame.lineno or 0).strip()
    return f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}: {line}"
