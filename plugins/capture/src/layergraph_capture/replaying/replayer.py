"""The replay of a run in the other mode of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from layergraph.ir.function_name import FunctionName
from layergraph.torch2ir.indexing.leaves import is_as_found
from layergraph.torch2ir.indexing.module_index import ModuleInfo
from layergraph.torch2ir.results import opened
from layergraph.torch2ir.tracing.called_functions import CHANGING, changes_its_first_argument
from layergraph.torch2ir.tracing.module_call import Call, ModuleCall, values_in
from layergraph.torch2ir.tracing.other_mode import Changed, ModeReading, OtherMode, Replaced
from layergraph.undo import raise_interrupt
from layergraph_capture.arguments import tensors_in
from layergraph_capture.interception.number_queries import DATA_DEPENDENT_OPS
from layergraph_capture.replaying.abstract_values import AbstractValues, metadata_of
from layergraph_capture.replaying.rerecord import Rerecording
from layergraph_capture.replaying.stand_ins import with_memory
from layergraph_capture.replaying.value_match import (
    freeze,
    ids,
    is_transparent,
    matches,
    memory,
    sizes_in,
    structure,
    with_tensors_of,
)
from layergraph_capture.tracer import EagerTracer


class ReplayDiverged(Exception):  # noqa: N818 the word of the replay
    """The other mode makes other calls, so its graph cannot come from this run."""


@dataclass(slots=True)
class Step:
    """One step of a run: the call of a function or a leaf, or the enter or exit of a composite.

    Attributes:
        subject: the function, leaf or composite.
        given: its arguments; for a composite, the structure of its arguments or result.
        gave: its result; for a composite, None if the tensors keep their values.
        scope: for a composite, its module call.
        call: for a function, the recorded call.
        asked_mode: for a leaf, whether its code read its mode.
        sizes: at the enter of a composite, the shapes of its tensor arguments.
    """

    subject: object
    given: Any
    gave: Any
    scope: ModuleCall | None = None
    call: Call | None = None
    asked_mode: bool = False
    sizes: tuple[torch.Size, ...] = ()


class Replayer:
    """Replays a run: checks that the code makes the same steps, and returns their old results.

    Args:
        run: the tracer of the run.
        steps: its steps.

    Attributes:
        is_refused: whether a module does something in this mode that a graph cannot hold.
    """

    def __init__(self, run: EagerTracer, steps: Sequence[Step]) -> None:
        self.is_refused = False
        self._run = run
        self._steps = steps
        self._done = 0
        # After the last op whose result depends on tensor values, wrong values cannot change
        # control flow.
        self._telling = max(
            (n for n, step in enumerate(steps, 1) if step.subject in VALUE_DEPENDENT_OPS), default=0
        )
        self._recorder = run.recorder
        self._recorder.seal(self.diverge)
        self._readings: set[ModeReading] = set()
        self._changed: list[Changed] = []
        self._replaced: list[Replaced] = []
        self._again: Rerecording | None = None
        self._kinds = AbstractValues()
        self._is_other = False
        # The ids and the memory of tensors whose numbers may be wrong for this mode.
        self._tainted: set[int] = set()

    @property
    def is_following(self) -> bool:
        """Return whether the replay reuses results, and records nothing."""
        return self._again is None

    def found(self) -> OtherMode | None:
        """Return the differences of the other mode; None if unknown."""
        if self._is_other or self._done < len(self._steps):
            return None
        return OtherMode(self._readings, self._changed, self._replaced)

    def diverge(self) -> NoReturn:
        """Stop the replay, because the code makes other steps than in the run."""
        # The flag stays set even if the model's code catches the error.
        self._is_other = True
        raise ReplayDiverged

    def refuse(self) -> NoReturn:
        """Stop the replay, because a capture in this mode would fail too."""
        self.is_refused = not self.is_following
        self.diverge()

    def put_back(self) -> None:
        """Restore the record of the run."""
        if self._again is not None:
            self._again.put_back()
            self._go_on(self._again.scope)

    def _go_on(self, scope: ModuleCall) -> None:
        """Continue the replay in a module call after the re-recording of another one."""
        self._again = None
        self._recorder.scope = scope
        self._recorder.seal(self.diverge)

    def end(self) -> None:
        """End the replay, and resume recording."""
        self.put_back()
        self._recorder.scope = self._recorder.root
        self._recorder.unseal()

    def mode_read(self, module_info: ModuleInfo) -> None:
        """Record that code reads the mode of a module."""
        self._readings.add((module_info.path, self._recorder.scope.path))

    def _require(self, holds: bool) -> None:
        if not holds:
            self.diverge()

    def step(self, subject: object, given: Any) -> Step:
        """Return the next step of the run; stop the replay if this is a different one."""
        step = self._next(subject)
        self._require(matches(step.given, given))
        return step

    def _next(self, subject: object) -> Step:
        step = self._steps[self._done] if self._done < len(self._steps) else None
        if step is None or step.subject != subject:
            self.diverge()
        self._done += 1
        return step

    def function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the old result of a function, or its result in this mode."""
        if func is torch._C._set_grad_enabled:
            func(*args, **kwargs)
        step = self._next(func)
        given = args, kwargs
        if not matches(step.given, given):
            return self._other_function(step, func, args, kwargs)
        if self._tainted and self._done <= self._telling:
            is_tainted = self._propagate_taint(step, self._run.calls.name_of(func))
            if is_tainted and func in VALUE_DEPENDENT_OPS:
                self.diverge()
        return freeze(step.gave)

    def _other_function(
        self, step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name, call = self._run.calls.name_of(func), step.call
        if name is None or call is None or call.target != name:
            self.diverge()
        self._require(not _changes(name, kwargs))
        self._require(matches([*tensors_in(step.given)], [*tensors_in((args, kwargs))]))
        changed = Changed(call, self._run.to_literal(args), self._run.to_literal(kwargs))
        # Symbolic sizes among the arguments must be equal: modes may differ in plain values only.
        self._require(values_in(call.args, call.kwargs) == values_in(changed.args, changed.kwargs))
        self._changed.append(changed)
        kind = self._run.unrecorded(self._kinds.of_result, (func, args, kwargs), {})
        self._require(kind == metadata_of(step.gave))
        self._taint(step.gave, step.given)
        return step.gave

    def leaf(
        self, module_info: ModuleInfo, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """Return the old result of a leaf."""
        step = self.step(module_info, (args, kwargs))
        with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            self._require(is_as_found(module_info))
        self._require(vars(module_info.module)["training"] == self._run.trains[module_info])
        if self._tainted and self._done <= self._telling:
            self._propagate_taint(step, None)
        if step.asked_mode:
            args, kwargs = self._run.unrecorded(with_memory, ((args, kwargs),), {})
            result = self._run.unrecorded(original, (module_info.module, *args), kwargs)
            self._require(metadata_of(result) == metadata_of(step.gave))
            self._taint((step.gave, *module_info.module.buffers()), step.given)
        return freeze(step.gave)

    def module(
        self, module_info: ModuleInfo, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """Return the old result of a composite, after the same steps or a re-recording.

        The code around it continues with the old result.
        """
        (args, kwargs), scope = self._cross(module_info, (args, kwargs))
        self._require((scope.parent or scope) is self._recorder.scope)
        self._recorder.scope = scope
        entered, was_other = self._done, self._is_other
        takes_gradients = torch._C.is_grad_enabled()
        try:
            result, left = self._cross(module_info, original(module_info.module, *args, **kwargs))
            # The code of the module may have caught the error.
            self._require(left is scope and self._is_other == was_other)
        except ReplayDiverged as error:
            raise_interrupt(error)
            if not self._is_replaceable(scope, (args, kwargs), entered):
                raise
            self._is_other = was_other
            self._run.unrecorded(torch._C._set_grad_enabled, (takes_gradients,), {})
            result = self._module_again(module_info, original, args, kwargs)
        self._recorder.scope = scope.parent or scope
        return result

    def _cross(self, module_info: ModuleInfo, given: Any) -> tuple[Any, ModuleCall]:
        step = self._next(module_info)
        if step.scope is None:
            self.diverge()
        crosses = structure(given if step.scope.parent is not None else opened(given))
        self._require(matches(step.given, crosses))
        return (given if step.gave is None else freeze(step.gave)), step.scope

    def _is_replaceable(self, scope: ModuleCall, given: Any, entered: int) -> bool:
        """Return whether a module call with other steps can be re-recorded; skip its old steps."""
        if self._again is not None or self._recorder.scope is not scope or scope.parent is None:
            return False
        later = range(entered, len(self._steps))
        end = next(n for n in later if self._steps[n].scope is scope)
        self._done = end + 1
        # In-place operations may have changed the arguments since.
        is_as_it_was = sizes_in(given) == self._steps[entered - 1].sizes
        return is_as_it_was and is_transparent(given) and is_transparent(self._steps[end].given)

    def _module_again(
        self, module_info: ModuleInfo, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """Re-run one module in the other mode; return its old output if that is unnoticeable."""
        scope, step = self._recorder.scope, self._steps[self._done - 1]
        self._taint(tuple(module_info.module.buffers()))
        self._run.guards.forget(scope)
        self._recorder.unseal()
        self._again = rerecording = Rerecording(
            self._recorder, scope, [*tensors_in((args, kwargs))]
        )
        switch = self._run.switch
        switch.check = self._check_operation
        try:
            result = self._run.leave(module_info, original(module_info.module, *args, **kwargs))
        except Exception:
            self.put_back()
            # The flag stays set even if the code around it catches the error.
            self._is_other = True
            raise
        finally:
            switch.check = None
        is_closed = rerecording.done()
        self._go_on(scope)
        gave = step.given if step.gave is None else structure(step.gave)
        self._require(
            is_closed
            and is_transparent(result)
            and metadata_of(structure(result)) == metadata_of(gave)
        )
        self._replaced.append(rerecording.replaced)
        self._readings |= rerecording.readings
        self._taint((gave, result))
        return with_tensors_of(result, gave)

    def _check_operation(self, operation: Any) -> None:
        """Stop at an operation that reads numbers, because the module's arguments may be wrong."""
        if not _BY_NUMBERS.isdisjoint(getattr(operation, "tags", ())):
            self.diverge()

    def _propagate_taint(self, step: Step, name: str | None) -> bool:
        """Return whether a step reads tainted tensors; if so, taint its result."""
        is_tainted = not self._tainted.isdisjoint(memory(step.given) | ids(step.given))
        if is_tainted:
            self._taint(step.gave, step.given)
            if name is None or _changes(name, step.given[1]):
                self._taint(step.given)
        return is_tainted

    def _taint(self, value: Any, given: Any = ()) -> None:
        """Mark tensors and their memory as tainted, because results may alias arguments."""
        if self._done < self._telling:
            self._tainted |= ids(value) | (memory(value) - memory(given))


# Functions that read numbers of a tensor, or its memory layout.
VALUE_DEPENDENT_OPS = DATA_DEPENDENT_OPS | {
    *(torch.equal, torch.allclose, torch.Tensor.equal, torch.Tensor.allclose),
    *(torch.Tensor.stride, torch.Tensor.is_contiguous, torch.Tensor.storage_offset),
}


# Torch's tags of operations whose outputs or output shapes depend on numbers.
_BY_NUMBERS = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})


def _changes(name: str, kwargs: dict[str, Any]) -> bool:
    """Return whether a function changes its arguments."""
    if type(name) is FunctionName:
        return True  # it may
    changing = [kwargs[key] for key in CHANGING & kwargs.keys()]
    return changes_its_first_argument(str(name)) or any(
        each is not None and each is not False for each in changing
    )
