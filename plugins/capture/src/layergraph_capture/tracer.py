"""Capturing a model by running it once: it computes, and what it does is written down."""

from __future__ import annotations

import functools
import importlib
import operator
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from layergraph.capturing import Values
from layergraph.errors import CaptureError
from layergraph.functions import Functions, method_of
from layergraph.ir import Symbol, Value
from layergraph.ir.values import leaves
from layergraph.literals import UnknownValueError, lower
from layergraph.operations import OPERATIONS, computes, is_composite
from layergraph.state import Memory
from layergraph.tensors import owns_its_storage, unsuitable, version
from layergraph.torch2ir.indexing.leaves import is_changed, is_untouched, note_leaves, note_left
from layergraph.torch2ir.indexing.module_index import ModuleIndex, ModuleInfo
from layergraph.torch2ir.indexing.unregistered import unregistered
from layergraph.torch2ir.state.changes import are_one
from layergraph.torch2ir.state.generators import without_draws
from layergraph.torch2ir.state.global_state import may_draw, may_layer_draw
from layergraph.torch2ir.tracing.module_call import (
    Call,
    DeferredCall,
    ModuleCall,
    StateRead,
    Trace,
    TracedValue,
)
from layergraph.torch2ir.tracing.patches import Patch
from layergraph.torch2ir.tracing.tracer import (
    Tracer,
    changes_its_first_argument,
    code_place,
    open_code,
    unnamed,
)
from layergraph.undo import Modes, undoing
from layergraph_capture.arguments import Arguments, LazyElement, element, tensors_in
from layergraph_capture.constants import Constants
from layergraph_capture.interceptors import unseen
from layergraph_capture.outputs import opened
from layergraph_capture.snapshot import StateSnapshot
from layergraph_capture.symbolic_int import (
    SYMBOLIC_TYPES,
    MathPatches,
    Origin,
    SymbolicNumber,
    end,
    lost,
    plain,
    symbolic,
)
from layergraph_capture.tensor_queries import questions

_GETITEM = "operator.getitem"

_AS_OPERATORS = {
    f"torch.Tensor.__{name}__": f"operator.{name}" for name in "getitem setitem pow".split()
}

# What they give of the same arguments is always the same.
_FIXED = frozenset(
    {
        *(f"torch.{name}" for name in "arange clone eye full linspace ones tensor zeros".split()),
        *(f"torch.Tensor.{name}" for name in "add div mul sub neg unbind view reshape to".split()),
        _GETITEM,
    }
)


class EagerTracer(Tracer):
    """One run of a model on tensors.

    Args:
        module_index: the model.
        keys: the state-dict key of each of its tensors, by ``id``.
        memory: where these lie.
        functions: the functions that may become nodes.
        constants: the tensors that the model has besides.
        values: what to do where code decides by a number that it reads out of a tensor.
        arguments: what to call the model with.

    Attributes:
        trains: whether each module is training, as it stands.
    """

    hint = "a handler for the module can keep it whole"
    readable = frozenset({torch.Tensor, nn.Parameter, nn.Buffer, torch.device, *SYMBOLIC_TYPES})

    def __init__(
        self,
        module_index: ModuleIndex,
        keys: dict[int, str],
        memory: Memory,
        functions: Functions,
        constants: Constants,
        values: Values,
        arguments: Arguments,
    ) -> None:
        super().__init__(module_index, keys, memory, functions, arguments.device)
        self.values = values
        self._arguments = arguments
        self._constants = constants
        self._kept = StateSnapshot(module_index, constants)
        self._inside = 0
        # Whether a function is being called that a plugin names: it may make any tensor.
        self._calls_foreign = False
        # A tensor is known as long as it lives: afterwards another one may get its id.
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], TracedValue | LazyElement]] = {}
        self._devices: dict[int, tuple[torch.device, LazyElement]] = {}
        self.born: list[weakref.ref[SymbolicNumber]] = []
        self._emitted: dict[int, tuple[SymbolicNumber, TracedValue]] = {}
        self._assumed: dict[ModuleCall, set[Any]] = {}
        self._regions: dict[int, tuple[object, TracedValue]] = {}
        self._changes_in_place = False
        self.trains = note_leaves(module_index)
        self._questions = questions(self)
        self._math = MathPatches(self)

    # --- running ---

    def run(self) -> Trace:
        """See :class:`Tracer`. It then keeps no size that it recorded."""
        try:
            return super().run()
        finally:
            self._emitted.clear()
            self._known.clear()
            self._devices.clear()
            end(self.born)

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """See :class:`Tracer`."""
        args, kwargs, self.parameters = self._arguments.bind(self)
        return args, kwargs

    def watching(self) -> AbstractContextManager[object]:
        """See :class:`Tracer`."""
        return self._watching()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        with (
            without_draws(self.generators),
            self._kept,
            # Modes above them are taken off, too: leaving them in order would fail.
            undoing(Modes().put_back),
        ):
            modes: tuple[Any, ...] = _Beneath(self), _FunctionMode(self)
            for mode in modes:
                mode.__enter__()
            yield

    def patches(self) -> Iterator[Patch]:
        """See :class:`Tracer`."""
        # Some functions of torch import it, and it would take the patched ones for torch's own.
        importlib.import_module("torch._dynamo")
        yield from unseen(self, self.module_index)
        yield from self.named_functions()
        yield from self.size_functions()

    def scope_patches(self, members: dict[str, Any]) -> Iterator[Patch]:
        """See :class:`Tracer`."""
        yield from self._math.of(members)

    def environment(self, name: str, value: str | None) -> None:
        """See :class:`Tracer`."""
        if self.is_new(("environment", name)):
            super().environment(name, value)

    def is_recording(self) -> bool:
        """See :class:`Tracer`."""
        return not self._inside and super().is_recording()

    def leaf(
        self, module_info: ModuleInfo, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """See :class:`Tracer`."""
        # What is asked here of tensors, the model does not ask.
        with torch._C.DisableTorchFunction(), _without_dispatch(with_wrappers=False):
            self.compare_state()
            if is_changed(module_info, self.trains):
                self.refuse(f"a change of {module_info.path!r} that lasts for a call")
            lowered, named = self.lower(args), self.lower(kwargs) if kwargs else {}
            before = _versions(args, kwargs)
            if _renorms(module_info.module):
                self._kept.save(*module_info.module.parameters())
        result = self._tried(module_info.path, original, (module_info.module, *args), kwargs)
        with torch._C.DisableTorchFunction():
            if may_layer_draw(type(module_info.module)):
                self.state.drew()
            if not is_untouched(module_info):
                self.unrecorded(note_left, (module_info,), {})
            value = self.recorder.call("module", module_info.path, lowered, named)
            return self._bound(result, value, before)

    def _tried(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        problem: str = "",
    ) -> Any:
        try:
            return self.unrecorded(function, args, kwargs)
        except Exception as error:
            if problem and not isinstance(error, CaptureError):
                # It may be why the function fails.
                self.refuse(problem)
            self.failed(name, error)
            raise

    def unrecorded(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call something of which nothing is recorded."""
        self._inside += 1
        try:
            with_wrappers = self._calls_foreign or _may_hold_wrappers(args, kwargs)
            with _Unseen(), _without_dispatch(with_wrappers):
                given = _with_numbers(args, plain)
                return function(*given, **(_with_numbers(kwargs, plain) if kwargs else {}))
        finally:
            self._inside -= 1

    def renamed(self, result: Any) -> Any:
        """See :class:`Tracer`."""
        if type(result) is tuple:
            renamed = [self.renamed(each) for each in result]
            return result if _alike(renamed, result) else tuple(renamed)
        if isinstance(result, torch.Tensor):
            value = self._value_of(result)
            if value is not None and not self.recorder.is_inside(value):
                return self._alias(result, self.recorder.call("same", "", (value,), {}))
        return result

    def passed(self, args: Any, kwargs: Any) -> Any:
        """See :class:`Tracer`."""
        aliases: dict[int, torch.Tensor] = {}

        def passed(given: Any) -> Any:
            kind = type(given)
            if isinstance(given, torch.Tensor):
                key = None if self._value_of(given) else self.state_keys.get(id(given))
                if key is not None and id(given) not in aliases:
                    value = self.recorder.call("state", key, (), {})
                    aliases[id(given)] = self._alias(given, value)
                return aliases.get(id(given), given)
            if kind is tuple or kind is list:
                inside = [passed(each) for each in given]
                return given if _alike(inside, given) else kind(inside)
            if kind is dict:
                by_name = {key: passed(each) for key, each in given.items()}
                return given if _alike(by_name.values(), given.values()) else by_name
            return given

        return passed(args), passed(kwargs)

    def border(self, value: Any) -> Value:
        """See :class:`Tracer`: what a graph cannot hold is left out, for dataflow alone counts."""
        try:
            return lower(value, self._read_at_border, self.readable)
        except UnknownValueError as error:
            raise CaptureError(f"a graph cannot hold {error}") from None

    def _read_at_border(self, value: Any) -> Value:
        if isinstance(value, torch.Tensor):
            return self._value_of(value)
        known = isinstance(value, SymbolicNumber) and value.listener is self
        return self.read(value) if known else None

    def returned(self, result: Any) -> Value:
        """See :class:`Tracer`. What it did to the caller's dicts and lists comes before."""
        for name, (part, key, item) in self._arguments.changes():
            rest = () if name == "operator.delitem" else (self.lower(item),)
            self.recorder.call("function", name, (part(), self.lower(key), *rest), {})
        return super().returned(opened(result))

    # --- values ---

    def bind(self, tensor: torch.Tensor, value: TracedValue | LazyElement) -> None:
        """Note that a tensor is a value, or a part of one."""
        self._known[id(tensor)] = weakref.ref(tensor), value
        if isinstance(value, TracedValue):
            self._describe(value, tensor)

    def _describe(self, value: TracedValue, tensor: torch.Tensor) -> None:
        self._inside += 1
        value.rank = tensor.dim()
        value.dtype = _symbol(tensor.dtype)
        self._inside -= 1

    def _value_of(self, tensor: torch.Tensor) -> TracedValue | None:
        """The value that a tensor is known to be."""
        known = self._known.get(id(tensor))
        if known is None or known[0]() is not tensor:
            return None
        value = known[1]
        if not isinstance(value, TracedValue):
            value = value()
            self.bind(tensor, value)
        return value

    def call_of(self, result: Any) -> Call | None:
        """The call that gave a tensor."""
        value = self._value_of(result) if isinstance(result, torch.Tensor) else None
        return None if value is None else value.call

    def read(self, value: Any) -> Value:
        """See :class:`Tracer`."""
        if isinstance(value, torch.Tensor):
            return self._value_of(value) or self._state(value)
        if isinstance(value, SymbolicNumber):
            if value.listener is not self:
                return self._kept_number(value)
            return self._number(value)
        if isinstance(value, torch.device):
            return self._device(value)
        raise UnknownValueError(f"{value!r}, a {type(value).__name__}")

    def _kept_number(self, number: SymbolicNumber) -> Value:
        if not number.listener.is_over:
            raise UnknownValueError("a size of a capture that is going on around this one")
        value: Value = number.plain()
        return value

    def _state(self, tensor: torch.Tensor) -> StateRead:
        key = self.state_keys.get(id(tensor))
        if key is not None:
            return StateRead(key)
        if isinstance(tensor, nn.Parameter):
            raise UnknownValueError(unregistered(self.module_index, tensor))
        if not self._constants.holds(tensor):
            raise UnknownValueError(
                "a tensor that came about where capture does not see it; make it with a function "
                "of torch, or register it with register_buffer"
            )
        reason = unsuitable(tensor)
        if reason is not None:
            raise UnknownValueError(f"{self._constants.place(tensor)}: it {reason}")
        read = self.constant(tensor)
        # It may be changed before it is described.
        self.constants[read.key] = self.unrecorded(torch.clone, (tensor,), {})
        return read

    def _number(self, number: SymbolicNumber) -> TracedValue:
        """The value of a number that was computed from sizes."""
        pending = [number]
        while pending:
            number = pending[-1]
            if self._value_of_number(number) is not None:
                pending.pop()
                continue
            name, *args = number.origin
            missing = [
                arg
                for arg in args
                if isinstance(arg, SymbolicNumber) and self._value_of_number(arg) is None
            ]
            if missing:
                pending += missing
                continue
            plain_args = [
                self._value_of_number(arg) if isinstance(arg, SymbolicNumber) else arg
                for arg in args
            ]
            value = self.recorder.call("function", name, tuple(plain_args), {})
            self._emitted[id(number)] = number, value
            pending.pop()
        result = self._value_of_number(number)
        if result is None:
            raise UnknownValueError(f"{number.plain()!r}")
        return result

    def _value_of_number(self, number: SymbolicNumber) -> TracedValue | None:
        if isinstance(number.origin[0], DeferredCall):
            late: DeferredCall = number.origin[0]
            target, *args = number.origin[1:]
            return late.call((target, *args), target, tuple(args))
        known = self._emitted.get(id(number))
        if known is None or known[0] is not number:
            return None
        scope: ModuleCall | None = self.recorder.scope
        while scope is not None and scope is not known[1].scope:
            scope = scope.parent
        return known[1] if scope is not None else None

    def keep(self, tensor: torch.Tensor) -> None:
        """Remember the numbers of a tensor of the model, to put them back."""
        self.unrecorded(self._kept.save, (tensor,), {})

    def late_number(self, value: Any, late: DeferredCall, target: str, *args: Value) -> Any:
        """A number that a function gives at a place that was kept."""
        return symbolic(value, (late, target, *args), self)

    # --- devices ---

    def late_device(self, device: torch.device, part: LazyElement) -> torch.device:
        """Note that a device is that of a tensor."""
        self._devices[id(device)] = device, part
        return device

    def _device(self, device: torch.device) -> Value:
        """Where a tensor is, if the device is one's that was asked; or where the inputs are."""
        known = self._devices.get(id(device))
        if known is not None and known[0] is device:
            return known[1]()
        anchor = self._anchor() if device == self._arguments.device else None
        if anchor is None:
            return str(device)
        return self.recorder.call("function", "torch.Tensor.device", (anchor,), {})

    def device_type(self, kind: str) -> Value:
        """The type of the device where the inputs are, if it is that."""
        here = self._arguments.device
        anchor = self._anchor() if here is not None and kind == here.type else None
        if anchor is None:
            return kind
        device = self.recorder.call("function", "torch.Tensor.device", (anchor,), {})
        return self.recorder.call("function", "torch.device.type", (device,), {})

    def _anchor(self) -> TracedValue | None:
        """A tensor that the current module call, or the nearest one around it, was given."""
        scope: ModuleCall | None = self.recorder.scope
        while scope is not None:
            for leaf in leaves(scope.args, scope.kwargs):
                if isinstance(leaf, TracedValue) and leaf.rank is not None:
                    return leaf
            scope = scope.parent
        return None

    # --- assumptions ---

    def assume(self, origin: Origin, result: object) -> None:
        """See :class:`sizes.SizeListener`."""
        if not self.is_recording():
            return
        key = tuple([each.key() if isinstance(each, SymbolicNumber) else each for each in origin])
        if self.is_new(key):
            if len(origin) == 1:
                value = self.read(origin[0])
            else:
                name, *args = origin
                value = self.recorder.call("function", name, self.lower(tuple(args)), {})
            self.expect(value, result)

    def is_new(self, key: Any) -> bool:
        """Whether something is assumed for the first time in a module call and those around it."""
        scope: ModuleCall | None = self.recorder.scope
        while scope is not None:
            if key in self._assumed.get(scope, ()):
                return False
            scope = scope.parent
        self._assumed.setdefault(self.recorder.scope, set()).add(key)
        return True

    def forget(self, scope: ModuleCall) -> None:
        """Note that nothing is assumed yet in a module call."""
        self._assumed.pop(scope, None)

    def expect_truth(self, value: Value, truth: bool) -> None:
        """Record that a tensor is assumed to be true, or not, as it is now."""
        if self.is_new(("truth", value)):
            args = (value, truth, code_place())
            self.recorder.call("function", "layergraph.assume_truth", args, {})

    def decided(
        self,
        name: str,
        args: tuple[Value, ...],
        result: object,
        kwargs: dict[str, Value] | None = None,
    ) -> None:
        """Note that the model may decide by what a function gives."""
        if self._is_new_call(name, args, kwargs or {}):
            self.expect(self.recorder.call("function", name, args, kwargs or {}), result)

    def _is_new_call(self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> bool:
        try:
            return self.is_new((name, *args, *kwargs.items()))
        except TypeError:  # there is a list among them
            return True

    # --- functions ---

    def named_function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See :class:`Tracer`."""
        before, self._calls_foreign = self._calls_foreign, True
        try:
            # Torch switches the mode off for the functions that it knows.
            with _Unseen():
                return super().named_function(func, args, kwargs)
        finally:
            self._calls_foreign = before

    def torch_function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of a function of torch, and make it."""
        question = self._questions.get(func)
        if question is not None:
            return question(func, args, kwargs)
        name = self.name_of(func)
        if name is not None:
            return self.function(name, func, args, kwargs)
        return self._unnamed(func, args, kwargs)

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of something in :data:`torch.ops`, and make it."""
        if not computes(func):
            return func(*args, **kwargs)
        method = method_of(func) if args else None
        if method is None:
            return self.torch_function(func, args, kwargs)
        gave = self.torch_function(method, args, kwargs)
        # The method gives a size, or a tuple.
        return list(gave) if isinstance(gave, tuple) else gave

    def name_of(self, func: Any) -> str | None:
        """The name that a call of a function is recorded under; None if there is none."""
        name = self.functions.name_of(func)
        return None if name is None else _AS_OPERATORS.get(name, name)

    def function(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of a function by its name, and make it."""
        self.compare_state()
        problem = ""
        try:
            lowered, named = self.lower(args), self.lower(kwargs) if kwargs else {}
            self.refuse_change_of_constant(name, lowered)
        except CaptureError as error:
            opened_code = open_code(func, args, kwargs)
            if opened_code is not None:
                with _FunctionMode(self):
                    return opened_code(*args, **kwargs)
            problem, lowered, named = str(error), (), {}
        before = _versions(args, kwargs)
        if changes_its_first_argument(name) or name in _SHARING or kwargs.keys() & CHANGING:
            self._kept.save(*args, *kwargs.values())
        result = self._tried(name, func, args, kwargs, problem)
        if result is NotImplemented:
            # Python asks the other operand then: the types decide, and not the tensors.
            return result
        if may_draw(name, func):
            self.state.drew()
        if problem:
            self.refuse(problem)
        if result is not None and _holds_no_tensor(result):
            if not kwargs and _are_numbers(result) and not any(True for _ in tensors_in(args)):
                return self._sizes(name, args, lowered, result)
            return self._asked(name, lowered, named, result)
        value = self.recorder.call("function", name, lowered, named)
        if type(result) in (list, tuple):
            # How many there are, the sizes of what is given may decide.
            said = (value, len(result), code_place())
            self.recorder.call("function", "layergraph.assume_length", said, {})
        self._changes_in_place |= any(
            version(each) != before[id(each)] for each in args if id(each) in before
        )
        return self._bound(result, value, before)

    def _asked(
        self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value], result: Any
    ) -> Any:
        """What a function says about tensors: the graph is taken to depend on it."""
        if any(isinstance(leaf, TracedValue) for leaf in leaves(args, kwargs)):
            self.decided(name, args, result, kwargs)
        return result

    def _sizes(
        self, name: str, given: tuple[Any, ...], args: tuple[Value, ...], result: Any
    ) -> Any:
        """The result of a function of sizes, as symbolic ints."""
        if not any(isinstance(leaf, TracedValue) for leaf in leaves(args)):
            return result
        if not isinstance(result, tuple):
            is_flat = not any(isinstance(each, tuple | list | dict) for each in given)
            return (
                symbolic(result, (name, *given), self)
                if is_flat
                else self._asked(name, args, {}, result)
            )
        value = self.recorder.call("function", name, args, {})
        late = self.recorder.late()
        known = [
            self.late_number(number, late, _GETITEM, value, place)
            for place, number in enumerate(result)
        ]
        return torch.Size(known) if isinstance(result, torch.Size) else tuple(known)

    def _unnamed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call of a function without a name; what it does is recorded one level below."""
        name = getattr(func, "__name__", "")
        if isinstance(func, torch._ops.HigherOrderOperator):
            reason = (
                f"the operation torch.ops.higher_order.{func}, which calls functions that a graph "
                "cannot hold"
            )
            return self._refused_call(reason, func, args, kwargs)
        if name == "__set__":
            name = func.__self__.__name__
            if name == "requires_grad" and id(args[0]) not in self.state_keys:
                return self.torch_function(torch.Tensor.requires_grad_, args, kwargs)
            self._kept.save(args[0])
            if name != "data" or not self.unrecorded(are_one, args, {}):
                self.refuse(f"setting the attribute {name!r} of a tensor")
            return self.unrecorded(func, args, kwargs)
        if isinstance(func, OPERATIONS) and not is_composite(func):
            return self._refused_call(unnamed(func), func, args, kwargs)
        if (getattr(func, "__module__", None) or "").startswith("torch.autograd"):
            self.refuse(f"{name}, which computes gradients")
        recorded = len(self.recorder.scope.items)
        result = func(*_with_numbers(args, lost), **_with_numbers(kwargs, lost))
        self._guard_unnamed(recorded, args, kwargs)
        concerned = not _holds_no_tensor([*args, *kwargs.values(), result])
        if concerned and recorded == len(self.recorder.scope.items):
            what = func.__self__.__name__ if name == "__get__" else name or repr(func)
            self.refuse(f"{what!r} of a tensor, which has no name in an IR")
        return result

    def _is_new_made(self, tensor: torch.Tensor) -> bool:
        # Others may change memory that is theirs, as numpy's is.
        return not self._is_known(tensor) and owns_its_storage(tensor)

    def _fresh(self, func: Any, tensor: torch.Tensor) -> Any:
        """Record a tensor that torch made of numbers of Python: a new one in each call."""
        numbers = self.constant(self.unrecorded(torch.clone, (tensor,), {}))
        result = self.unrecorded(func, (tensor,), {})
        self.bind(result, self.recorder.call("function", "torch.clone", (numbers,), {}))
        return result

    def aten(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call that only torch's dispatcher sees, and make it."""
        if func is _LIFT_FRESH and self._is_new_made(args[0]):
            return self._fresh(func, args[0])
        name = self.functions.name_of(func)
        if name is None:
            if isinstance(func, OPERATIONS):
                return self._refused_call(unnamed(func), func, args, kwargs)
            return self._refused_call(
                f"the operation {func}, which has no name in an IR", func, args, kwargs
            )
        if _takes_sizes(func, args, kwargs):
            self.assume_shapes(args, kwargs)
        return self.function(name, func, args, kwargs)

    def _guard_unnamed(self, recorded: int, args: Any, kwargs: Any) -> None:
        """Note by which sizes and dtypes a function without a name may have decided what to do.

        Args:
            recorded: how many items there were before the function ran.
            args: the function's arguments.
            kwargs: those by name.
        """
        beneath = [
            item
            for item in self.recorder.scope.items[recorded:]
            if isinstance(item, Call) and "aten.detach" not in item.target
        ]
        done = len(self.recorder.scope.items)
        if len(beneath) > 1:
            # With other sizes it may take another path.
            self.assume_shapes(args, kwargs)
        if any(map(_names_a_dtype, beneath)):
            self._assume_dtypes(args, kwargs)
        if done < len(self.recorder.scope.items):
            self.recorder.bring_forward(recorded, done)

    def _refused_call(
        self, reason: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Refuse a call of something without a name, and make it.

        What it gives is known from there on, so that nothing else is refused because of it.
        """
        self.refuse(reason)
        if isinstance(func, torch._ops.HigherOrderOperator):
            result = self._inside_of(func, args, kwargs)
        else:
            result = self._tried(str(func), func, args, kwargs)
        if _holds_no_tensor(result):
            return result
        return self._bound(result, self.recorder.call("function", str(func), (), {}), {})

    def _inside_of(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call an operator that torch needs its modes for."""
        self._inside += 1
        try:
            return func(*_with_numbers(args, plain), **_with_numbers(kwargs, plain))
        finally:
            self._inside -= 1

    def assume_shapes(self, args: Any, kwargs: Any) -> None:
        """Note that the shapes of tensors decide what the graph is."""
        for tensor in tensors_in((args, kwargs)):
            value = self._value_of(tensor)
            if value is not None and self.is_new(("shape", value)):
                size = self.recorder.call("function", "torch.Tensor.size", (value,), {})
                self.expect(size, self.unrecorded(_shape, (tensor,), {}))

    def _assume_dtypes(self, args: Any, kwargs: Any) -> None:
        """Note that the dtypes of tensors decide what the graph is."""
        for tensor in tensors_in((args, kwargs)):
            value = self._value_of(tensor)
            if value is not None:
                dtype = self.unrecorded(operator.attrgetter("dtype"), (tensor,), {})
                self.decided("torch.Tensor.dtype", (value,), dtype)

    def region(self, name: str, *args: Value) -> TracedValue:
        """Record the begin or the end of a region."""
        return self.recorder.call("function", name, args, {})

    def set_grad_enabled(self, mode: bool, region: object, leaves: bool) -> None:
        """Record the begin or the end of a region without gradients, or with them."""
        known = self._regions.pop(id(region), None) if leaves else None
        given: Value = mode if known is None else known[1]
        value = self.recorder.call("function", "layergraph.set_grad_enabled", (given,), {})
        if region is not None and not leaves:
            # Its first call tells what was before.
            self._regions.setdefault(id(region), (region, value))

    # --- results ---

    def _bound(self, result: Any, value: TracedValue, before: dict[int, int]) -> Any:
        """What a call gave, with its tensors known by their values."""
        if isinstance(result, torch.Tensor):
            if not self._is_known(result):
                self.bind(result, value)
            elif before.get(id(result), version(result)) == version(result):
                return self._alias(result, value)
            elif id(result) not in self.state_keys:
                self.bind(result, value)
            return result
        if result is None or _holds_no_tensor(result):
            return result
        return self._parts(result, self.recorder.late(), lambda: value, before)

    def _parts(
        self, result: Any, late: DeferredCall, whole: LazyElement, before: dict[int, int]
    ) -> Any:
        if isinstance(result, torch.Tensor):
            if not self._is_known(result):
                self.bind(result, whole)
            elif before.get(id(result), version(result)) == version(result):
                return self._alias(result, whole())
            return result
        if not isinstance(result, tuple | list | dict):
            if type(result) in (bool, int, float):
                self.expect(whole(), result)
            return result
        items = list(result.items() if isinstance(result, dict) else enumerate(result))
        parts = [self._parts(item, late, element(late, whole, key), before) for key, item in items]
        if type(result) not in (tuple, list) or _alike(parts, result):
            return result
        return type(result)(parts)

    def _is_known(self, tensor: torch.Tensor) -> bool:
        known = self._known.get(id(tensor))
        return id(tensor) in self.state_keys or (known is not None and known[0]() is tensor)

    def _alias(self, tensor: torch.Tensor, value: TracedValue) -> torch.Tensor:
        """The same tensor as another object, so that the two can be told apart.

        A function that has nothing to do gives back what it was given. In the rebuilt model it may
        have something to do, and then its result is another tensor.
        """
        alias: torch.Tensor = self.unrecorded(tensor.view_as, (tensor,), {})
        self.bind(alias, value)
        return alias

    def is_fixed(self, value: Value) -> bool:
        """Whether a value is the same for all inputs and all states of the model."""
        pending = [value]
        seen: set[TracedValue] = set()
        while pending and not self._changes_in_place:
            leaf = pending.pop()
            if isinstance(leaf, StateRead) and not leaf.key.startswith(":"):
                return False
            if isinstance(leaf, TracedValue) and leaf not in seen:
                seen.add(leaf)
                if leaf.call is None or leaf.call.target not in _FIXED:
                    return False
                pending += leaves(leaf.call.args, leaf.call.kwargs)
        return not pending


class _FunctionMode(TorchFunctionMode):
    def __init__(self, capture: EagerTracer) -> None:
        super().__init__()
        self._capture = capture
        self._record = capture.watch.off(capture.torch_function)
        self._operate = capture.watch.off(capture.operation)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if self._capture._inside:
            return func(*args, **(kwargs or {}))
        record = self._operate if isinstance(func, OPERATIONS) else self._record
        return record(func, args, kwargs or {})


class _Unseen:
    """While nobody wants to know of functions: torch then takes other ways, and shorter ones.

    Does nothing where the mode by which they are seen is not on top.
    """

    __slots__ = ("_mode",)

    def __enter__(self) -> None:
        depth = torch._C._len_torch_function_stack()
        is_on_top = depth and type(torch._C._get_function_stack_at(depth - 1)) is _FunctionMode
        self._mode = torch._C._pop_torch_function_stack() if is_on_top else None

    def __exit__(self, *_: object) -> None:
        if self._mode is not None:
            torch._C._push_on_torch_function_stack(self._mode)


def _without_dispatch(with_wrappers: bool) -> AbstractContextManager[object]:
    """The context in which no mode sees what torch's dispatcher does.

    A tensor that wraps another one has no memory: its operations need the dispatcher to come to its
    class. The quicker context leaves its class out, too, and the process dies.
    """
    if not with_wrappers:
        return torch._C._DisableTorchDispatch()
    included = torch._C._dispatch_tls_local_include_set()
    for key in (torch._C.DispatchKey.Python, torch._C.DispatchKey.PythonTLSSnapshot):
        included = included.remove(key)
    excluded = torch._C._dispatch_tls_local_exclude_set()
    return torch._C._ForceDispatchKeyGuard(included, excluded)


def _may_hold_wrappers(args: Any, kwargs: Any) -> bool:
    """Return whether something else than plain tensors and values is among arguments."""
    if not _KNOWN.issuperset(map(type, args)):
        for each in args:
            if not _is_known(each):
                return True
    return bool(kwargs) and not all(map(_is_known, kwargs.values()))


def _is_known(value: Any) -> bool:
    if isinstance(value, nn.Module):
        # The parameters of a model are plain, and a layer of torch has no other tensors.
        inside = value.modules() if value._modules else (value,)
        return all(_is_of_torch(type(each).__module__) for each in inside)
    if type(value) in (tuple, list):
        return _KNOWN.issuperset(map(type, value)) or all(map(_is_known, value))
    return type(value) in _KNOWN


@functools.cache
def _is_of_torch(home: str) -> bool:
    return home.startswith("torch.nn.modules.")


_KNOWN = frozenset(
    {
        *(torch.Tensor, nn.Parameter, torch.Size, *SYMBOLIC_TYPES),
        *(int, float, complex, bool, str, slice, type(None), type(...)),
        *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Generator),
    }
)


class _Beneath(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's is untyped
    # So that ``torch.cond`` and its like come here too, and are refused by name.
    supports_higher_order_operators = True

    def __init__(self, capture: EagerTracer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._capture = capture
        self._record = capture.watch.off(capture.aten)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if self._capture._inside or not computes(func):
            return func(*args, **(kwargs or {}))
        return self._record(func, args, kwargs or {})


def _names_a_dtype(call: Call) -> bool:
    """Return whether a call is given a dtype, which torch may have taken from that of a tensor."""
    given = leaves(call.args, call.kwargs)
    return any(type(leaf) is Symbol and leaf.name in _DTYPES for leaf in given)


_DTYPES = frozenset(str(each) for each in vars(torch).values() if isinstance(each, torch.dtype))


@functools.cache
def _symbol(dtype: torch.dtype) -> Symbol:
    return Symbol(str(dtype))


# Under these arguments something else than the result is changed.
CHANGING = frozenset({"inplace", "max_norm", "out"})
# What they give shares memory, but does not count changes.
_SHARING = frozenset({"torch.Tensor.data", "torch.Tensor.detach", "torch.detach"})


def _renorms(module: nn.Module) -> bool:
    """Whether a layer changes its own weights when it is called."""
    # Asking a module for what it does not have takes it long.
    said = vars(module).get("max_norm", getattr(type(module), "max_norm", None))
    return said is not None


def _alike(ones: Any, others: Any) -> bool:
    """Whether two sequences hold the same objects."""
    return all(one is other for one, other in zip(ones, others, strict=True))


_WITHOUT_NUMBERS = frozenset(
    {torch.Tensor, nn.Parameter, int, float, bool, str, type(None), torch.dtype, torch.device}
)


def _with_numbers(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value in which numbers with an origin are what becomes of them."""
    kind = type(value)
    if kind in SYMBOLIC_TYPES:
        return change(value)
    if kind is tuple or kind is list:
        if _WITHOUT_NUMBERS.issuperset(map(type, value)):
            return value
        inside = [_with_numbers(each, change) for each in value]
        return value if _alike(inside, value) else kind(inside)
    if kind is torch.Size:
        return torch.Size([change(each) for each in value])
    if kind is dict:
        return {key: _with_numbers(each, change) for key, each in value.items()}
    if kind is slice:
        return slice(change(value.start), change(value.stop), change(value.step))
    return value


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _versions(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[int, int]:
    """How often each of the tensors has been changed in place."""
    given = [*args, *kwargs.values()] if kwargs else args
    return {id(each): version(each) for each in given if isinstance(each, torch.Tensor)}


def _holds_no_tensor(result: Any) -> bool:
    if isinstance(result, torch.Tensor):
        return False
    if isinstance(result, dict):
        result = result.values()
    elif not isinstance(result, _SEQUENCES):
        return True
    return all(map(_holds_no_tensor, result))


_SEQUENCES = (tuple, list)


def _are_numbers(result: Any) -> bool:
    inside = result if isinstance(result, tuple) else (result,)
    return all(type(each) is int or type(each) is float for each in inside)


# By it torch makes tensors of numbers that Python has, and of what these were computed from all is
# known: sizes and tensors were asked.
_LIFT_FRESH = torch.ops.aten.lift_fresh.default


def _takes_sizes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation was given numbers that are likely to come from sizes."""
    for index, argument in enumerate(func._schema.arguments):
        if "SymInt" in str(argument.real_type):
            given = args[index] if index < len(args) else kwargs.get(argument.name)
            if given is not None and given != argument.default_value:
                return True
    return False
