"""A tracer that runs a model once for both modes.

The tracer logs the run step by step. Then it replays the model's code in the other mode. As long as
the code makes the same steps, it gets meta tensors for their results, so nothing is computed twice,
and the replay finds where the modes differ. A module with other steps runs in the other mode, and
the code around it continues with the old output. If the modes differ in more than that, the replay
stops, and the capturer runs the model in the other mode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from layergraph.ir import Value
from layergraph.torch2ir.indexing.module_index import ModuleInfo, other_mode
from layergraph.torch2ir.results import opened
from layergraph.torch2ir.state.generators import without_draws
from layergraph.torch2ir.state.global_state import put_back, snapshot
from layergraph.torch2ir.tracing.module_call import ModuleCall, Trace
from layergraph.torch2ir.tracing.other_mode import OtherMode
from layergraph.undo import raise_interrupt
from layergraph_capture.arguments import tensors_in
from layergraph_capture.replaying.replayer import VALUE_DEPENDENT_OPS, Replayer, Step
from layergraph_capture.replaying.stand_ins import StandIns
from layergraph_capture.replaying.value_match import freeze, matches, sizes_in, structure
from layergraph_capture.tracer import EagerTracer

# The log keeps results without a stand-in up to so many bytes.
MAX_LOG_BYTES = 2**28


@dataclass(slots=True)
class _Log:
    """The steps of a run, in order.

    Attributes:
        steps: each step.
        is_complete: whether the log has all steps.
    """

    steps: list[Step] = field(default_factory=list)
    is_complete: bool = True

    def give_up(self) -> None:
        """Drop the log, because something happened that cannot be replayed."""
        self.is_complete = False
        self.steps.clear()


class ReplayTracer(EagerTracer):
    """A run of a model on tensors, followed by a replay in the other mode if possible."""

    def __init__(self, *known: Any) -> None:
        super().__init__(*known)
        self._log = _Log()
        self._stand_ins = StandIns(self.tensors, ())
        self._replayer: Replayer | None = None
        self._asked_mode = False
        # The number of functions that are running as steps, one inside the other.
        self._depth = 0
        self._other: OtherMode | None = None
        self._is_other_refused = False

    def run(self) -> Trace:
        """See :class:`Tracer`."""
        try:
            trace = super().run()
        finally:
            self._log.give_up()
        if not self.changes:
            trace.other = self._other
            trace.is_other_refused = self._is_other_refused
        return trace

    def call(self, model: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> None:
        """See :class:`Tracer`."""
        given = freeze((tuple(args), kwargs))
        own = [*tensors_in(given), *self._snapshot.tensors()]
        self._stand_ins = StandIns(self.tensors, own)
        if self._arguments.given.objects:
            # The run changes these, so the replay would find the changed ones.
            self._log.give_up()
        super().call(model, args, kwargs)
        if self._log.is_complete and self._asked_mode and self.refusals.is_empty:
            log = self._log
            try:
                self._other = self._in_other_mode(model, *given)
            finally:
                # The steps keep sizes alive in a reference cycle.
                log.give_up()

    # --- the other mode ---

    def _in_other_mode(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> OtherMode | None:
        trains, takes_gradients = self.trains, torch._C.is_grad_enabled()
        if self.outside.differs():
            return None
        settings = snapshot()
        self.sizes.loops = 0
        self.tables.begin()
        tensors = self._stand_ins.tensors
        for step in self._log.steps:
            step.given, step.gave = tensors(step.given), tensors(step.gave)
        self._replayer = replayer = Replayer(self, self._log.steps)
        self._log = _Log(is_complete=False)
        self.trains = {each: not training for each, training in trains.items()}
        try:
            # Side effects in the other mode are no refusal of this mode.
            with (
                without_draws(),
                other_mode(self.module_index),
                self.decisions.replaying(replayer.diverge),
            ):
                self.call_root(model, args, kwargs)
        except Exception as error:
            raise_interrupt(error)
            return None
        finally:
            changes = self.outside.put_back()
            replayer.end()
            self._is_other_refused = replayer.is_refused
            self._replayer, self.trains = None, trains
            caught = len(self.refusals.caught)
            self.refusals.caught.clear()
            # If the replay stops while a region is entered, its exit does not run.
            self.unrecorded(torch._C._set_grad_enabled, (takes_gradients,), {})
            put_back(settings)
            self.state.refresh()
            self.state.drew()
        return None if changes or caught else replayer.found()

    @property
    def _following(self) -> Replayer | None:
        """Return the replayer; None while calls are recorded."""
        replayer = self._replayer
        return replayer if replayer is None or replayer.is_following else None

    # --- steps ---

    def torch_function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See :class:`Tracer`."""
        replayer = self._following
        if replayer is not None:
            self.compare_state()
            return replayer.function(func, args, kwargs)
        if self._replayer is not None and func in VALUE_DEPENDENT_OPS:
            self._replayer.diverge()
        given = freeze((args, kwargs))
        self._depth += 1
        try:
            result = super().torch_function(func, args, kwargs)
        finally:
            self._depth -= 1
        return self._kept_step(func, given, result, call=self.tensors.call_of(result))

    def leaf(
        self, module_info: ModuleInfo, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """See :class:`Tracer`."""
        replayer = self._following
        if replayer is not None:
            self.compare_state()
            return replayer.leaf(module_info, original, args, kwargs)
        given = freeze((args, kwargs))
        asked, self._asked_mode = self._asked_mode, False
        result = super().leaf(module_info, original, args, kwargs)
        self._kept_step(module_info, given, result, asked_mode=self._asked_mode)
        self._asked_mode = asked
        return result

    def module(
        self, module_info: ModuleInfo, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """See :class:`Tracer`."""
        replayer = self._following
        if replayer is not None:
            result = replayer.module(module_info, original, args, kwargs)
            self.compare_state(type(module_info.module))
            return result
        return super().module(module_info, original, args, kwargs)

    def enter(
        self, module_info: ModuleInfo, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """See :class:`Tracer`."""
        passed = super().enter(module_info, args, kwargs)
        sizes = sizes_in((args, kwargs)) if self._log.is_complete else ()
        self._kept_border(module_info, (args, kwargs), passed, self.recorder.scope, sizes)
        return passed

    def leave(self, module_info: ModuleInfo, result: Any) -> Any:
        """See :class:`Tracer`."""
        scope = self.recorder.scope
        renamed = super().leave(module_info, result)
        self._kept_border(module_info, result, renamed, scope)
        return renamed

    def device_type(self, kind: str) -> Value:
        """See :class:`EagerTracer`."""
        replayer = self._following
        if replayer is not None:
            return replayer.step("device_type", kind).gave
        return self._kept_step("device_type", kind, super().device_type(kind))

    def region(self, name: str, *args: Value) -> Any:
        """See :class:`EagerTracer`."""
        replayer = self._following
        if replayer is not None:
            return replayer.step(name, args).gave
        return self._kept_step(name, args, super().region(name, *args))

    def higher_order(
        self, name: str, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """See :class:`Tracer`. The capturer then runs the whole model in the other mode."""
        if self._replayer is not None:
            self._replayer.diverge()
        self._log.give_up()
        return super().higher_order(name, original, args, kwargs)

    def aten(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See :class:`EagerTracer`."""
        if self._following is not None:
            self._following.diverge()
        if not self._depth:
            self._log.give_up()
        return super().aten(func, args, kwargs)

    def mode_used(self, module: nn.Module, training: bool | None) -> None:
        """See :class:`Tracer`. If code sets a mode, the whole model runs in the other one."""
        module_info = self.module_index.get(module)
        if training is None:
            if module_info is None:
                # Code makes a module, such as a slice of a ModuleList.
                return
            if self._replayer is not None:
                self._replayer.diverge()
            if not self.switch.depth:
                self._log.give_up()
        replayer = self._following
        if replayer is not None:
            if not self.switch.depth and module_info is not None:
                replayer.mode_read(module_info)
            return
        self._asked_mode = True
        super().mode_used(module, training)

    def refuse(self, reason: str, line: str = "") -> None:
        """See :class:`Tracer`."""
        if self._replayer is not None:
            self._replayer.refuse()
        super().refuse(reason, line)

    def _kept_step(self, subject: object, given: Any, gave: Any, **more: Any) -> Any:
        log, stand_ins = self._log, self._stand_ins
        if log.is_complete:
            log.steps.append(Step(subject, stand_ins.given(given), stand_ins.made(gave), **more))
            if stand_ins.kept > MAX_LOG_BYTES:
                log.give_up()
        return gave

    def _kept_border(
        self,
        module_info: ModuleInfo,
        given: Any,
        gave: Any,
        scope: ModuleCall,
        sizes: tuple[torch.Size, ...] = (),
    ) -> None:
        if self._log.is_complete:
            passed = None if matches(given, gave) else gave
            crosses = structure(given if scope.parent is not None else opened(given))
            self._kept_step(module_info, crosses, passed, scope=scope, sizes=sizes)
