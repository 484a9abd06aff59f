"""The tracer that both ways of tracing extend: it runs the model and records its calls."""

from __future__ import annotations

import contextvars
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from threading import get_ident
from typing import Any

import torch
from torch import nn

from layergraph.errors import CaptureError
from layergraph.functions.names import Functions
from layergraph.ir import Record, Value
from layergraph.ir.values import rebuilt
from layergraph.literals import size_record, to_graph_literal
from layergraph.tensors.state import Memory
from layergraph.torch2ir.indexing.leaves import begin_runs
from layergraph.torch2ir.indexing.module_index import ModuleIndex, ModuleInfo
from layergraph.torch2ir.indexing.overrides import runs_around_forward
from layergraph.torch2ir.state.change_policy import ChangePolicy
from layergraph.torch2ir.state.changes import Change, Unchanged
from layergraph.torch2ir.state.generators import foreign_generators
from layergraph.torch2ir.state.global_state import GlobalState
from layergraph.torch2ir.state.state_queries import state_queries
from layergraph.torch2ir.state.watching import Watch
from layergraph.torch2ir.tracing.code_patches import import_patches, module_patches
from layergraph.torch2ir.tracing.environment import environment
from layergraph.torch2ir.tracing.higher_order import higher_order_calls
from layergraph.torch2ir.tracing.lines import code_place, first_line_of
from layergraph.torch2ir.tracing.mode_uses import ModeUses
from layergraph.torch2ir.tracing.module_call import Parameter, Trace
from layergraph.torch2ir.tracing.patches import Patch, Patcher, with_room_for
from layergraph.torch2ir.tracing.reached_code import ReachedCode
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph.torch2ir.tracing.refusal_log import RefusalLog
from layergraph.torch2ir.tracing.refusals import jagged_tensors, transforms
from layergraph.torch2ir.tracing.state_tensors import StateTensors
from layergraph.torch2ir.tracing.way_of_tracing import WayOfTracing
from layergraph.undo import raise_interrupt, undoing


class Tracer(WayOfTracing):
    """One recorded run of a model, on symbols or on tensors.

    Args:
        module_index: the model.
        keys: the state-dict key of each of its tensors, by ``id``.
        memory: where these tensors lie in memory.
        functions: the functions that may become nodes.
        device: where the model runs; None if unknown.

    Attributes:
        state: the global state of torch during the run.
        recorder: the recorder of the calls.
        state_tensors: the tensors of the model, by their keys.
        parameters: the arguments of the model.
        refusals: the refusals so far.
        outside: undoes the changes of the model's code to objects other than tensors.
        policy: tells which changes of the model's code may stay.
        carried: changes of an earlier run, which this run starts with.
        is_around_forward: whether the code of the model's class around ``forward`` runs.
        hidden: the keys of the hidden states that the leaves hold when the run begins, by ``id``.
        generators: the states of the generators of Python and numpy, before the model runs.
    """

    def __init__(
        self,
        module_index: ModuleIndex,
        keys: dict[int, str],
        memory: Memory,
        functions: Functions,
        device: torch.device | None = None,
    ) -> None:
        self.state = GlobalState(device)
        self.recorder = Recorder()
        self.parameters: list[Parameter] = []
        self.module_index = module_index
        self.state_tensors = StateTensors(module_index, keys, memory)
        self.functions = functions
        self.refusals = RefusalLog(module_index, self.recorder, self.hint)
        self.outside = Unchanged(module_index)
        self.policy = ChangePolicy()
        self.carried: list[Change] = []
        self.generators: tuple[Any, ...] = ()
        self.hidden: dict[int, str] = {}
        self.watch = Watch(module_index.reach.enter, module_index.reach.codes)
        self.is_around_forward = False
        self._thread = 0
        self._mode_uses = ModeUses(module_index, self.recorder)

    # --- running ---

    def is_recording(self) -> bool:
        """Return whether the tracer records calls now."""
        return self.is_in_thread()

    def is_in_thread(self) -> bool:
        """Return whether the current thread is the one that captures."""
        return get_ident() == self._thread

    def environment(self, name: str, value: str | None) -> None:
        """Record that the model may branch on an environment variable."""
        place = code_place()
        self.recorder.call("function", "layergraph.assume_environment", (name, value, place), {})

    def run(self) -> Trace:
        """Run the model, record its calls, and undo its changes.

        Raises:
            CaptureError: this way of tracing cannot record the model.
        """
        # The model sets context variables in a copy of the context, so that ours stay as they are.
        context = contextvars.copy_context()
        with_room_for(self.module_index.depth, functools.partial(context.run, self._run_and_note))
        if self.refusals.refused:
            raise self.refusals.error()
        return Trace(self.recorder.root, self.state_tensors.constants, self.parameters).settle()

    def _run_and_note(self) -> None:
        self._thread = get_ident()
        args, kwargs = self.arguments()
        try:
            self._run(args, kwargs)
        except CaptureError as error:
            if error.unsupported:
                raise
            # The error came after the forward pass, so that no line of the model belongs to it.
            self.refusals.add(str(error), "")

    def _run(self, args: list[Any], kwargs: dict[str, Any]) -> None:
        model = self.module_index.root.module
        self.generators = foreign_generators()
        patcher = Patcher(self._patches())
        patches = self.scope_patches, self.name_patches
        reached = ReachedCode(self, patcher, self.outside, *patches)
        try:
            with (
                self.state.compared(),
                undoing(functools.partial(sys.settrace, sys.gettrace())),
                patcher,
                reached.listening(),
                self.outside,
                self.watching(),
            ):
                for change in self.carried:
                    change.carry()
                self.hidden = begin_runs(self.module_index)
                for tensor, key in self.hidden.items():
                    self.state_tensors.keys.setdefault(tensor, key)
                try:
                    self.call(model, args, kwargs)
                    self.compare_state(type(model), of_all=True)
                    self.refusals.add_assigned()
                    self.refusals.succeeded()
                except Exception as error:
                    raise_interrupt(error)
                    if isinstance(error, CaptureError) and error.unsupported:
                        raise
                    refusal, cause = self.refusals.ended_by(error)
                    raise refusal from cause
        finally:
            self._thread = 0
            self.refusals.end()

    @property
    def changes(self) -> list[Change]:
        """The changes that the model's code made; leaving the run has undone them."""
        return self.outside.changes

    def call(self, model: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Call the model."""
        self.call_root(model, args, kwargs)

    def call_root(self, model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Call the model; the code that its class runs around ``forward`` belongs to it."""
        if runs_around_forward(model) and not self.module_index.root.is_leaf:
            self.is_around_forward = True
            around = self.watch.on(type(model).__call__)
            self.module(self.module_index.root, around, tuple(args), kwargs)
        else:
            model(*args, **kwargs)

    def _patches(self) -> Iterator[Patch]:
        yield from module_patches(self)
        yield from transforms(self.is_recording)
        yield from higher_order_calls(self.is_recording, self.higher_order)
        yield from jagged_tensors(self.is_recording)
        yield from state_queries(self)
        yield from environment(self)
        yield from import_patches(self)
        yield from self.patches()

    def module(
        self, module_info: ModuleInfo, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """Call a composite, record the calls inside it, and return its result."""
        around = self.recorder.scope
        args, kwargs = self.enter(module_info, args, kwargs)
        try:
            result = original(module_info.module, *args, **kwargs)
        except Exception as error:
            # The module call stays open: it is the place of the error, unless code catches the
            # error.
            within, self.recorder.scope = self.recorder.scope, around
            if takes(module_info.module, args, kwargs):
                self.refusals.failed(module_info.path, error)
                self.recorder.scope = within
            else:
                self.recorder.drop(within)
            raise
        return self.leave(module_info, result)

    def enter(
        self, module_info: ModuleInfo, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Begin the call of a composite, and return the arguments for its ``forward``."""
        # The arguments are values of the caller, so we read them before the call begins.
        args, kwargs = self.passed(args, kwargs)
        border = self.border(args), self.border(kwargs)
        is_root = module_info is self.module_index.root
        scope = self.recorder.root if is_root else self.recorder.enter(module_info.path)
        if is_root:
            scope.args = tuple([parameter.value for parameter in self.parameters])
            scope.parameters = tuple([parameter.name for parameter in self.parameters])
        else:
            scope.args, scope.kwargs = border
            cls: Any = type(module_info.module)
            scope.parameters = _parameters(cls)
        return args, kwargs

    def leave(self, module_info: ModuleInfo, result: Any) -> Any:
        """End the call of a composite, and return its result."""
        self.compare_state(type(module_info.module))
        result = self.renamed(result)
        is_root = module_info is self.module_index.root
        self.recorder.leave(self.returned(result) if is_root else self.border(result))
        return result

    def returned(self, result: Any) -> Value:
        """Return the result of the model as a literal; unlike arguments, it keeps a torch.Size."""
        return to_graph_literal(result, self._read_returned, self.readable | {torch.Size, Record})

    def _read_returned(self, value: Any) -> Value:
        if type(value) is torch.Size:
            return size_record([self.to_literal(each) for each in value])
        if type(value) is Record:
            return rebuilt(value, [Tracer.returned(self, each) for each in value.fields.values()])
        return self.read(value)

    # --- recording ---

    def named_function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of a function that a plugin has named."""
        remade = self.functions.remade(func)
        if remade is not None:
            func, kwargs = remade[0], kwargs | remade[1]
        return self.torch_function(func, args, kwargs)

    def refuse(self, reason: str, line: str = "") -> None:
        """Record a refusal, and continue, so that one capture reports all refusals.

        Args:
            reason: the construct that a graph cannot hold.
            line: its line of code; if empty, the line that is running.
        """
        self.refusals.add(reason, line or code_place())

    def compare_state(self, left: type | None = None, *, of_all: bool = False) -> None:
        """Refuse changes that the model's code made to torch's global state since the last call.

        Args:
            left: the class of the module that has just returned; None in the middle of its code.
            of_all: also compare the settings that are slow to read.
        """
        change = self.state.change(of_all=of_all)
        if change is not None:
            self.refuse(change, "" if left is None else first_line_of(left))

    def to_literal(self, value: Any) -> Any:
        """Return an argument of a function as a literal."""
        return to_graph_literal(value, self.read, self.readable)

    def expect(self, value: Value, result: object) -> None:
        """Record a guard: a value equals its value at capture."""
        args = (value, self.to_literal(result), code_place())
        self.recorder.call("function", "layergraph.assume", args, {})

    def mode_used(self, module: nn.Module, training: bool | None) -> None:
        """Record that code reads ``training`` of a module, or sets it: see :class:`ModeUses`."""
        if self.is_recording():
            self._mode_uses.note(module, training)


def takes(module: nn.Module, args: Any, kwargs: Any) -> bool:
    """Return whether the signature of a module's ``forward`` accepts the arguments.

    If it does not, the call fails for all inputs, so code that catches the error always takes the
    same path.
    """
    try:
        inspect.signature(module.forward).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # it has no signature
        return True
    return True


@functools.cache
def _parameters(cls: Any) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(cls.forward).parameters)[1:]
    except (TypeError, ValueError, AttributeError):
        return ()
