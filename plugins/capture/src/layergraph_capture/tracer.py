"""Captures a model by running it once: the model computes, and each of its calls is recorded.

The tracer sees what the model does, and asks its trackers, each of which knows one thing: the
values of tensors, of sizes, of devices, and the guards. The trackers write to the recorder.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from layergraph.capturing import Values
from layergraph.errors import CaptureError
from layergraph.foreign import applied_class
from layergraph.functions import Functions, method_of
from layergraph.ir import Value
from layergraph.ir.function_name import FunctionName
from layergraph.ir.values import leaves
from layergraph.literals import UnknownValueError, to_graph_literal
from layergraph.operations import OPERATIONS, computes
from layergraph.state import Memory, UnrunnableError
from layergraph.tensors import version
from layergraph.torch2ir.indexing.leaves import (
    has_other_tensors,
    is_changed,
    is_untouched,
    note_leaves,
    note_left,
)
from layergraph.torch2ir.indexing.module_index import ModuleIndex, ModuleInfo
from layergraph.torch2ir.state.changes import Change
from layergraph.torch2ir.state.generators import without_draws
from layergraph.torch2ir.state.global_state import may_draw, may_layer_draw
from layergraph.torch2ir.state.watching import Watch
from layergraph.torch2ir.tracing.called_functions import (
    changes_its_first_argument,
    open_code,
    unnamed,
)
from layergraph.torch2ir.tracing.code_patches import named_functions, size_functions
from layergraph.torch2ir.tracing.lines import code_place
from layergraph.torch2ir.tracing.module_call import Trace, TracedValue
from layergraph.torch2ir.tracing.patches import Patch
from layergraph.torch2ir.tracing.tracer import Tracer, takes
from layergraph.torch2ir.tracing.unsupported import unsupported
from layergraph.undo import Modes, undoing
from layergraph_capture.applied import AppliedFunctions
from layergraph_capture.arguments import Arguments, tensors_in
from layergraph_capture.compiled_calls import compiled_calls
from layergraph_capture.constants import Constants
from layergraph_capture.conversions import ConversionPatches, Conversions
from layergraph_capture.decisions import Decisions
from layergraph_capture.devices import Devices
from layergraph_capture.foreign_states import ForeignStates
from layergraph_capture.frame_state import PlainStates, keeps_list
from layergraph_capture.guards import Guards
from layergraph_capture.hidden_states import HiddenStates
from layergraph_capture.higher_order import HigherOrderCalls
from layergraph_capture.interceptors import unseen
from layergraph_capture.list_slices import ListSlices
from layergraph_capture.math_patches import MathPatches
from layergraph_capture.objects import Objects
from layergraph_capture.outputs import opened
from layergraph_capture.results import Results
from layergraph_capture.saved_tensors import lean, nothing_saved, transforms_without_hooks
from layergraph_capture.sizes import Sizes
from layergraph_capture.snapshot import StateSnapshot
from layergraph_capture.symbolic_int import SYMBOLIC_TYPES, SymbolicNumber
from layergraph_capture.tensor_queries import Queries
from layergraph_capture.tensors import Tensors, holds_no_tensor, versions
from layergraph_capture.torch_modes import (
    DispatchMode,
    FunctionMode,
    RecordingSwitch,
    WithoutFunctionMode,
    without_dispatch,
)
from layergraph_capture.turns import TurnPatches
from layergraph_capture.unnamed import UnnamedCalls, takes_sizes

# A region of the model's own tells the answer, too: only the mode of the caller is a question.
GRAD_MODE = "torch.is_grad_enabled"
_AS_OPERATORS = {
    f"torch.Tensor.__{name}__": f"operator.{name}" for name in "getitem setitem pow".split()
}


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
        objects: the classes of objects that it takes and returns.
        answers: the ways to go at the first decisions by numbers.
        conversions: whether ``int()`` and ``float()`` keep where a number came from.
        numbers_turns: whether the numbers of the turns of loops are symbolic.
        knows: returns whether other runs have shown that changes matter to no later run.

    Attributes:
        switch: calls something without recording it.
        guards: writes down what the graph depends on.
        decisions: answers the questions by which the model decides.
        sizes: knows which number was computed from which sizes.
        devices: knows which device is that of which tensor.
        tensors: knows which tensor is which value.
        trains: whether each module is training, as it stands.
    """

    hint = "a handler for the module can keep it whole"
    readable = frozenset(
        {torch.Tensor, nn.Parameter, nn.Buffer, torch.device, TracedValue, *SYMBOLIC_TYPES}
    )

    def __init__(
        self,
        module_index: ModuleIndex,
        keys: dict[int, str],
        memory: Memory,
        functions: Functions,
        constants: Constants,
        values: Values,
        arguments: Arguments,
        objects: Objects,
        answers: Sequence[bool],
        conversions: Conversions,
        *,
        numbers_turns: bool = False,
        knows: Callable[[Sequence[Change]], bool] | None = None,
    ) -> None:
        super().__init__(module_index, keys, memory, functions, arguments.device)
        recorder, switch = self.recorder, RecordingSwitch()
        self._knows = knows
        self._arguments = arguments
        self._values = values
        self._results = Results(self, objects)
        self._snapshot = StateSnapshot(module_index, constants)
        self.switch = switch
        # Bound once: it is called for each function.
        self.unrecorded = switch.unrecorded  # type: ignore[method-assign]
        self.guards = Guards(recorder)
        self.decisions = Decisions(recorder, self.guards, answers)
        decisions = self.decisions if values == "both" else None
        self._states = PlainStates(self.outside) if numbers_turns else None
        self.sizes = Sizes(
            recorder,
            self.guards,
            self.is_recording,
            decisions,
            self._states,
        )
        self.devices = Devices(recorder, arguments.device)
        self._foreign = ForeignStates(module_index)
        self.tensors = Tensors(
            recorder, switch, self.state_tensors, constants, self.guards, self._foreign
        )
        self._hidden = HiddenStates(recorder, self.tensors, self.to_literal)
        self._queries = Queries(
            recorder,
            self.tensors,
            self.sizes,
            self.devices,
            self.guards,
            switch,
            self._snapshot,
            self.refuse,
            self.to_literal,
            values,
            self.decisions,
        ).table()
        self._unnamed = UnnamedCalls(
            recorder, self.tensors, switch, self._snapshot, self.refuse, self.attempt
        )
        self._applied = AppliedFunctions(self.tensors, switch, self.refuse)
        self._higher_order = HigherOrderCalls(self)
        self._slices = ListSlices(module_index.reach)
        self._turns = TurnPatches(self.sizes, self._slices) if numbers_turns else None
        if numbers_turns:
            self.watch = Watch(self._slices.enter, self._slices.seen)
        lengths = () if self._turns is None else (self._turns.length,)
        self._math = MathPatches(self.sizes, *lengths)
        self._conversions = ConversionPatches(self.sizes, conversions)
        self.trains = note_leaves(module_index)

    # --- running ---

    def run(self) -> Trace:
        """See :class:`Tracer`. It then keeps no size that it recorded."""
        self.tensors.carried = {
            id(tensor) for change in self.carried for tensor in tensors_in(change.now)
        }
        try:
            trace = super().run()
            if self._foreign.drop(trace):
                self._refuse(
                    "it reads a hidden state of a layer that is not part of the model; register "
                    "the layer in the model",
                    "",
                )
                raise unsupported(self.refused, self.hint)
            trace.decisions = self.decisions.made
            if self._states is not None:
                is_kept = any(keeps_list(each.now, each.was) for each in self.changes)
                keeps_lists = self._states.keeps_lists or is_kept
                trace.least_turns = self._slices.turns(keeps_lists=keeps_lists)
            trace.kept = {
                id(tensor): value
                for change in self.changes
                for tensor in tensors_in(change.now)
                if (value := self.tensors.value_of(tensor)) is not None
            }
            return trace
        finally:
            self.tensors.clear()
            self.devices.clear()
            self.sizes.end()

    def is_known(self, changes: Sequence[Change]) -> bool:
        """See :class:`Tracer`."""
        return self._knows is not None and self._knows(changes)

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """See :class:`Tracer`."""
        args, kwargs, self.parameters = self._arguments.bind(
            self.recorder, self.tensors.bind, self.sizes.of_caller
        )
        return args, kwargs

    def watching(self) -> AbstractContextManager[object]:
        """See :class:`Tracer`."""
        return self._watching()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        with (
            without_draws(self.generators),
            self._snapshot,
            nothing_saved(),
            compiled_calls(self),
            # Modes above them are taken off, too: leaving them in order would fail.
            undoing(Modes().put_back),
        ):
            beneath = DispatchMode(self.switch, self.watch.off(self.aten))
            modes: tuple[Any, ...] = beneath, self._function_mode()
            for mode in modes:
                mode.__enter__()
            yield

    def _function_mode(self) -> FunctionMode:
        off = self.watch.off
        return FunctionMode(self.switch, off(self.torch_function), off(self.operation))

    def patches(self) -> Iterator[Patch]:
        """See :class:`Tracer`."""
        # Some functions of torch import it, and it would take the patched ones for torch's own.
        importlib.import_module("torch._dynamo")
        yield from unseen(self, self.applied, self.region, self.tensors)
        yield from transforms_without_hooks()
        yield from named_functions(self)
        yield from size_functions(self)

    def scope_patches(self, members: dict[str, Any]) -> Iterator[Patch]:
        """See :class:`Tracer`."""
        yield from self._math.of(members)
        yield from self._conversions.of(members)
        if self._turns is not None:
            yield from self._turns.of(members)

    def region(self, name: str, *args: Value) -> TracedValue:
        """Record the begin or the end of a region."""
        return self.recorder.call("function", name, args, {})

    def environment(self, name: str, value: str | None) -> None:
        """See :class:`Tracer`."""
        if self.guards.is_new(("environment", name)):
            super().environment(name, value)

    def is_recording(self) -> bool:
        """See :class:`Tracer`."""
        return not self.switch.depth and super().is_recording()

    def leaf(
        self, module_info: ModuleInfo, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """See :class:`Tracer`."""
        # What is asked here of tensors, the model does not ask.
        with torch._C.DisableTorchFunction(), without_dispatch(with_wrappers=False):
            self.compare_state()
            is_swapped = self._is_swapped(module_info)
        if is_swapped:
            # It computes with values of the graph: what its code calls is recorded.
            return self.watch.on(original)(module_info.module, *args, **kwargs)
        with torch._C.DisableTorchFunction(), without_dispatch(with_wrappers=False):
            lowered, named = self._hidden.enter(module_info, args, kwargs)
            before = versions(args, kwargs)
            if _renorms(module_info.module):
                self._snapshot.save(*module_info.module.parameters())
        try:
            result = self.unrecorded(original, (module_info.module, *args), kwargs)
        except Exception as error:
            if takes(module_info.module, args, kwargs):
                self.failed(module_info.path, error)
            raise
        with torch._C.DisableTorchFunction():
            if may_layer_draw(type(module_info.module)):
                self.state.drew()
            if is_untouched(module_info):
                module_info.as_left = module_info.as_found
            else:
                self.unrecorded(note_left, (module_info,), {})
            self._note_changes(args, before, is_known=bool(vars(module_info.module).get("inplace")))
            if not self.guards.changes_state:
                self.guards.changes_state = _changes_own_state(module_info.module)
            value = self.recorder.call("module", module_info.path, lowered, named)
            result = self.tensors.bound(result, value, before)
            self._hidden.leave(module_info)
            return result

    def _is_swapped(self, module_info: ModuleInfo) -> bool:
        """Return whether code has given a leaf other tensors for a call; refuse other changes."""
        if not is_changed(module_info, self.trains):
            return False
        is_swapped = has_other_tensors(module_info, self.trains)
        if not is_swapped:
            self.refuse(f"a change of {module_info.path!r} that lasts for a call")
        return is_swapped

    def _note_changes(self, args: Any, before: dict[int, int], *, is_known: bool) -> None:
        """Take note of whether a call has changed a tensor in place."""
        if self.guards.changes_in_place:
            return
        # Tensors of the inference mode do not count their changes.
        self.guards.changes_in_place = is_known or any(
            version(each) != before[id(each)] for each in args if id(each) in before
        )

    def attempt(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        problem: str = "",
    ) -> Any:
        """Call a function without recording it, and take note of an error."""
        call = self.unrecorded if applied_class(function) is None else self._applied.call
        try:
            return call(function, args, kwargs)
        except Exception as error:
            if problem and not isinstance(error, CaptureError):
                # It may be why the function fails.
                self.refuse(problem)
            self.failed(name, error)
            raise

    def unrecorded(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """See :class:`Tracer`."""
        return self.switch.unrecorded(function, args, kwargs)

    # --- values ---

    def renamed(self, result: Any) -> Any:
        """See :class:`Tracer`."""
        return self.tensors.renamed(result)

    def passed(self, args: Any, kwargs: Any) -> Any:
        """See :class:`Tracer`."""
        return self.tensors.passed(args, kwargs)

    def border(self, value: Any) -> Value:
        """See :class:`Tracer`: what a graph cannot hold is left out, for dataflow alone counts."""
        lowered: Value = to_graph_literal(value, self._read_at_border, self.readable)
        return lowered

    def _read_at_border(self, value: Any) -> Value:
        if isinstance(value, torch.Tensor):
            return self.tensors.value_of(value)
        return self.sizes.read(value) if self.sizes.is_own(value) else None

    def returned(self, result: Any) -> Value:
        """See :class:`Tracer`. Changes of the caller's objects, dicts and lists come before."""
        self._results.change(self._arguments.given_objects)
        for name, (part, key, item) in self._arguments.changes():
            rest = () if name == "operator.delitem" else (self._results.literal(item),)
            self.recorder.call("function", name, (part, self.to_literal(key), *rest), {})
        return super().returned(opened(result, self._results.value_of))

    def read(self, value: Any) -> Value:
        """See :class:`Tracer`."""
        if isinstance(value, torch.Tensor):
            return self.tensors.read(value)
        if isinstance(value, SymbolicNumber):
            return self.sizes.read(value)
        if isinstance(value, torch.device):
            return self.devices.read(value)
        if isinstance(value, TracedValue):
            return value
        raise UnknownValueError(f"{value!r}, a {type(value).__name__}")

    def device_type(self, kind: str) -> Value:
        """See :class:`Tracer`: the type of the device where the inputs are, if it is that."""
        return self.devices.read_type(kind)

    def decided(self, name: str, args: tuple[Value, ...], result: object) -> object:
        """See :class:`Tracer`."""
        is_of_caller = name == GRAD_MODE and not self.decisions.is_in_region
        if is_of_caller and type(result) is bool and self._values == "both":
            return self.decisions.mode(name, result)
        self.guards.expect_call(name, args, self.to_literal(result))
        return result

    # --- functions ---

    def named_function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See :class:`Tracer`."""
        before, self.switch.calls_foreign = self.switch.calls_foreign, True
        try:
            # Torch switches the mode off for the functions that it knows.
            with WithoutFunctionMode():
                return super().named_function(func, args, kwargs)
        finally:
            self.switch.calls_foreign = before

    def applied(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of an autograd.Function, and make it."""
        self.unrecorded(self._snapshot.save, args, {})
        return self.named_function(func, args, kwargs)

    def torch_function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of a function of torch, and make it."""
        if self._turns is not None:
            self._slices.note_call(args)
        query = self._queries.get(func)
        if query is not None:
            return query(func, args, kwargs)
        name = self.name_of(func)
        if name is not None:
            return self.function(name, func, args, kwargs)
        if func == _SET_REQUIRES_GRAD and not self.tensors.is_state(args[0]):
            return self.torch_function(torch.Tensor.requires_grad_, args, kwargs)
        return self._unnamed.call(func, args, kwargs)

    def higher_order(
        self, name: str, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """See :class:`Tracer`."""
        return self._higher_order.call(name, original, args, kwargs)

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

    def aten(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call that only torch's dispatcher sees, and make it."""
        if func is _LIFT_FRESH and self.tensors.is_new_made(args[0]):
            return self.tensors.fresh(func, args[0])
        name = self.functions.name_of(func)
        if name is None:
            reason = f"the operation {func}, which has no name in an IR"
            if isinstance(func, OPERATIONS):
                reason = unnamed(func)
            return self._unnamed.refused(reason, func, args, kwargs)
        if takes_sizes(func, args, kwargs):
            self.tensors.guard_shapes(args, kwargs)
        return self.function(name, func, args, kwargs)

    def name_of(self, func: Any) -> str | None:
        """The name that a call of a function is recorded under; None if there is none."""
        name = self.functions.name_of(func)
        return None if name is None else _AS_OPERATORS.get(name, name)

    def function(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of a function by its name, and make it."""
        self.compare_state()
        if type(name) is FunctionName:
            name.where = code_place()
        problem = ""
        try:
            lowered, named = self.to_literal(args), self.to_literal(kwargs) if kwargs else {}
            self.refuse_change_of_constant(name, lowered)
        except CaptureError as error:
            self._stop_before_kernel(name, error)
            opened_code = open_code(func, args, kwargs)
            if opened_code is not None:
                with self._function_mode():
                    return opened_code(*args, **kwargs)
            problem, lowered, named = str(error), (), {}
        before = versions(args, kwargs)
        is_changing = changes_its_first_argument(str(name)) or any(
            # By identity: a tensor that is compared would be read.
            kwargs[each] is not None and kwargs[each] is not False
            for each in CHANGING & kwargs.keys()
        )
        if is_changing or name in _SHARING:
            self._snapshot.save(*args, *kwargs.values())
        result = self.attempt(name, lean(func), args, kwargs, problem)
        if result is NotImplemented:
            # Python asks the other operand then: the types decide, and not the tensors.
            return result
        if may_draw(name, func):
            self.state.drew()
        if problem:
            self.refuse(problem)
        is_sequence = type(result) in (list, tuple)
        # Of an empty sequence, the length is guarded, as of any other one.
        if result is not None and holds_no_tensor(result) and (result or not is_sequence):
            return self._plain_result(name, args, lowered, named, result)
        value = self.recorder.call("function", name, lowered, named)
        # Tensors do not count what these write into running statistics.
        self.guards.changes_state |= name.endswith(("batch_norm", "instance_norm"))
        if is_sequence:
            self.guards.expect_length(value, len(result))
        self._note_changes(args, before, is_known=is_changing)
        bound = self.tensors.bound(result, value, before)
        return bound if self._turns is None else self._turns.parts(bound)

    def _stop_before_kernel(self, name: str, error: CaptureError) -> None:
        """Raise if a kernel would read a tensor without memory, which ends the process."""
        if isinstance(error, UnrunnableError):
            self.failed(name, error)
            raise error

    def _plain_result(
        self,
        name: str,
        given: tuple[Any, ...],
        args: tuple[Value, ...],
        kwargs: dict[str, Value],
        result: Any,
    ) -> Any:
        """The result of a function that gives no tensor: numbers of sizes, or a decision."""
        if not any(isinstance(leaf, TracedValue) for leaf in leaves(args, kwargs)):
            return result
        is_of_sizes = (
            not kwargs
            and _are_numbers(result)
            and not any(True for _ in tensors_in(given))
            and (isinstance(result, tuple) or not any(map(_is_nested, given)))
        )
        if is_of_sizes:
            return self.sizes.of_call(name, given, args, result)
        if type(result) is bool and self._values == "both":
            return self.decisions.result(name, args, kwargs, result)
        self.guards.expect_call(name, args, self.to_literal(result), kwargs)
        return result


# Under these arguments something else than the result is changed.
CHANGING = frozenset({"inplace", "max_norm", "out"})
# What they give shares memory, but does not count changes.
_SHARING = frozenset({"torch.Tensor.data", "torch.Tensor.detach", "torch.detach"})

_SET_REQUIRES_GRAD = torch.Tensor.requires_grad.__set__  # type: ignore[attr-defined]

# By it torch makes tensors of numbers that Python has, and of what these were computed from all is
# known: sizes and tensors were asked.
_LIFT_FRESH = torch.ops.aten.lift_fresh.default


def _changes_own_state(module: nn.Module) -> bool:
    """Return whether a layer may change its tensors, for example in the other mode."""
    return _renorms(module) or next(module.buffers(), None) is not None


def _renorms(module: nn.Module) -> bool:
    """Whether a layer changes its own weights when it is called."""
    # Asking a module for what it does not have takes it long.
    said = vars(module).get("max_norm", getattr(type(module), "max_norm", None))
    return said is not None


def _are_numbers(result: Any) -> bool:
    inside = result if isinstance(result, tuple) else (result,)
    return all(type(each) is int or type(each) is float for each in inside)


def _is_nested(value: Any) -> bool:
    return isinstance(value, tuple | list | dict)
