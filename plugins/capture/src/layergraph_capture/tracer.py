"""The tracer of one run on example inputs.

The tracer intercepts the calls of the model, and passes each to its trackers. One tracker maps
tensors to values; others handle sizes, devices and guards. The trackers write to the recorder.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from layergraph.functions.names import Functions
from layergraph.ir import Value
from layergraph.literals import to_graph_literal
from layergraph.tensors.state import Memory
from layergraph.torch2ir.indexing.leaves import note_leaves
from layergraph.torch2ir.indexing.module_index import ModuleIndex, ModuleInfo
from layergraph.torch2ir.state.watching import Watch
from layergraph.torch2ir.tracing.code_patches import named_functions, size_functions
from layergraph.torch2ir.tracing.module_call import Trace, TracedValue
from layergraph.torch2ir.tracing.patches import Patch
from layergraph.torch2ir.tracing.tracer import Tracer
from layergraph_capture.arguments import tensors_in
from layergraph_capture.function_calls import FunctionCalls
from layergraph_capture.interception.arrays import Arrays
from layergraph_capture.interception.backward import Backward
from layergraph_capture.interception.generators import Generators
from layergraph_capture.interception.higher_order import HigherOrderCalls
from layergraph_capture.interception.interceptors import unseen
from layergraph_capture.interception.saved_tensors import transforms_without_hooks
from layergraph_capture.interception.torch_calls import TorchCalls
from layergraph_capture.interception.torch_modes import (
    FunctionMode,
    RecordingSwitch,
    WithoutFunctionMode,
)
from layergraph_capture.interception.watching import watching
from layergraph_capture.leaf_calls import LeafCalls
from layergraph_capture.loops.frame_state import keeps_list
from layergraph_capture.loops.list_slices import ListSlices
from layergraph_capture.loops.turns import TurnPatches
from layergraph_capture.results import Results
from layergraph_capture.run_options import RunOptions
from layergraph_capture.symbolic.conversions import ConversionPatches
from layergraph_capture.symbolic.math_patches import MathPatches
from layergraph_capture.symbolic.symbolic_int import SYMBOLIC_TYPES, SymbolicNumber
from layergraph_capture.tables.policy import TablePolicy
from layergraph_capture.trackers.foreign_states import READS_FOREIGN
from layergraph_capture.trackers.run_trackers import RunTrackers

# Inside a region of the model, the region decides the answer; only the caller's mode is a decision.
GRAD_MODE = "torch.is_grad_enabled"


class EagerTracer(Tracer):
    """One run of a model on tensors.

    Args:
        module_index: the model.
        keys: the state-dict key of each of its tensors, by ``id``.
        memory: where these tensors lie in memory.
        functions: the functions that may become nodes.
        options: the options of the run.

    Attributes:
        switch: turns recording off for a call.
        guards: records guards.
        decisions: answers decisions.
        sizes: makes symbolic sizes, and maps them to their values.
        devices: maps device objects to the tensors that they were read from.
        tensors: maps tensors to their values.
        calls: makes the calls that torch's modes see.
        backward: makes the calls of ``backward``.
        higher_orders: makes the calls that take functions.
        options: the options of the run.
        made_generators: maps generators of random numbers to their values.
        trains: the mode of each module before the run.
        turns: marks the turns of loops; None if loops are not searched.
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
        options: RunOptions,
    ) -> None:
        super().__init__(module_index, keys, memory, functions, options.arguments.device)
        self.switch = switch = RecordingSwitch(options.saved)
        # Bound once, because each call of a function uses it.
        self.unrecorded = switch.unrecorded  # type: ignore[method-assign]
        self.policy = TablePolicy(module_index, options)
        self.options = options
        self.made_generators = Generators(self)
        self._arguments, self._values = options.arguments, options.values
        self.short_runs = options.short_runs
        self._trackers = trackers = RunTrackers(self, options, switch)
        self.guards, self.decisions = trackers.guards, trackers.decisions
        self.sizes, self.devices = trackers.sizes, trackers.devices
        self.tensors, self._snapshot = trackers.tensors, trackers.snapshot
        self.backward = Backward(self, trackers.snapshot)
        self.arrays = Arrays(self)
        self._results = Results(self, options.objects)
        self.higher_orders = HigherOrderCalls(self)
        self._slices = ListSlices(module_index.reach)
        self.turns = TurnPatches(self.sizes, self._slices) if options.numbers_turns else None
        if options.numbers_turns:
            self.watch = Watch(self._slices.enter, self._slices.seen)
        lengths = () if self.turns is None else (self.turns.length,)
        slices = self._slices if options.numbers_turns else None
        self.calls = TorchCalls(self, trackers, options.values, slices)
        turns = () if self.turns is None else (self.turns,)
        self._scope_patches = MathPatches(self.sizes, *lengths), *turns
        conversions = ConversionPatches(self.sizes, options.conversions)
        self.name_patches = conversions.of  # type: ignore[method-assign]
        self._leaf_calls = LeafCalls(self, trackers.hidden, self._snapshot)
        self._function_calls = FunctionCalls(self, self._snapshot, self.turns, options.values)
        self._keyed_tables = options.tables
        self.tables = options.tables.of_run(module_index)
        self.trains = note_leaves(module_index)

    # --- running ---

    def run(self) -> Trace:
        """See :class:`Tracer`. Afterwards the tracer holds no symbolic size."""
        self.tensors.carried = {
            id(tensor) for change in self.carried for tensor in tensors_in(change.now)
        }
        try:
            with self.short_runs.watching(), self.options.checks():
                trace = super().run()
            self.options.flags.note(self.decisions.asked, self._snapshot.changed)
            self.calls.refuse_late_reads()
            if self._trackers.foreign.drop(trace):
                self.refusals.add(READS_FOREIGN, "")
            if self.refusals.refused:
                raise self.refusals.error()
            self._complete(trace)
            return trace
        finally:
            self._keyed_tables.note(self.changes)
            self.tensors.clear()
            self.devices.clear()
            self.made_generators.clear()
            self.sizes.end()

    def _complete(self, trace: Trace) -> None:
        trace.decisions = self.decisions.settled()
        states = self._trackers.states
        if states is not None:
            is_kept = any(keeps_list(each.now, each.was) for each in self.changes)
            trace.least_turns = self._slices.turns(keeps_lists=states.keeps_lists or is_kept)
        if self._snapshot.saves_parameters:
            self.short_runs.changes_parameters()
        self.tables.check(trace, self.tensors.value_of)
        trace.kept = {
            id(tensor): value
            for change in self.changes
            for tensor in tensors_in(change.now)
            if (value := self.tensors.value_of(tensor)) is not None
        }

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """See :class:`Tracer`."""
        args, kwargs, self.parameters = self._arguments.bind(
            self.recorder, self.made_generators.bind_any, self.sizes.of_caller, self.turns
        )
        return args, kwargs

    def watching(self) -> AbstractContextManager[object]:
        """See :class:`Tracer`."""
        return watching(self, self._snapshot)

    def function_mode(self) -> FunctionMode:
        """Return a mode of torch that records functions."""
        off = self.watch.off
        return FunctionMode(self.switch, off(self.torch_function), off(self.calls.operation))

    def patches(self) -> Iterator[Patch]:
        """See :class:`Tracer`."""
        # Import Dynamo before patching: it reads torch's functions, and would store the patched
        # ones.
        importlib.import_module("torch._dynamo")
        yield from unseen(self, self.calls.applied, self.region, self.tensors)
        yield from transforms_without_hooks()
        yield from named_functions(self)
        yield from size_functions(self)
        yield from self.tables.patches()
        yield from self.made_generators.patches()
        yield from self.backward.patches()
        yield from self.arrays.patches()

    def scope_patches(self, members: dict[str, Any]) -> Iterator[Patch]:
        """See :class:`Tracer`."""
        for each in self._scope_patches:
            yield from each.of(members)

    def region(self, name: str, *args: Value) -> TracedValue:
        """Record the enter or exit node of a region."""
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
        return self._leaf_calls.call(module_info, original, args, kwargs)

    def unrecorded(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """See :class:`Tracer`."""
        return self.switch.unrecorded(function, args, kwargs)

    def renamed(self, result: Any) -> Any:
        """See :class:`Tracer`."""
        return self._trackers.borders.renamed(result)

    def passed(self, args: Any, kwargs: Any) -> Any:
        """See :class:`Tracer`."""
        return self._trackers.borders.passed(args, kwargs)

    def border(self, value: Any) -> Value:
        """See :class:`Tracer`. Values that a graph cannot hold are dropped: dataflow is enough."""
        return to_graph_literal(value, self._read_at_border, self.readable)

    def _read_at_border(self, value: Any) -> Value:
        if isinstance(value, torch.Tensor):
            return self.tensors.value_of(value)
        return self.sizes.read(value) if self.sizes.is_own(value) else None

    def returned(self, result: Any) -> Value:
        """See :class:`Tracer`. First record the changes of the caller's objects and containers."""
        return super().returned(self._results.returned(result, self._arguments))

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
        return self.made_generators.read(value)

    def device_type(self, kind: str) -> Value:
        """See :class:`Tracer`. If the inputs are on such a device, return their device type."""
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
            # Torch itself disables the mode only around its own functions.
            with WithoutFunctionMode():
                return super().named_function(func, args, kwargs)
        finally:
            self.switch.calls_foreign = before

    def torch_function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make and record a call of a function of torch."""
        return self.calls.function(func, args, kwargs)

    def higher_order(
        self, name: str, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """See :class:`Tracer`."""
        return self.higher_orders.call(name, original, args, kwargs)

    def aten(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make and record a call that only torch's dispatcher sees."""
        return self.calls.aten(func, args, kwargs)

    def function(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make and record a call of a function by its name."""
        if self.recorder.position >= self.short_runs.next_look:
            self.short_runs.look(self.recorder)
        return self._function_calls.call(name, func, args, kwargs)
