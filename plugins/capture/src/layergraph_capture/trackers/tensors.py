"""The tensors of a run, and their values in the graph."""

from __future__ import annotations

import functools
import operator
import weakref
from collections.abc import Mapping
from typing import Any

import torch

from layergraph.ir import Symbol, Value
from layergraph.literals import UnknownValueError
from layergraph.tensors.memory import is_plain, owns_its_storage, unsuitable, version
from layergraph.tensors.state import UnrunnableError, indescribable
from layergraph.torch2ir.tracing.module_call import Call, DeferredCall, StateRead, TracedValue
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph.torch2ir.tracing.state_tensors import StateTensors
from layergraph_capture.arguments import element, tensors_in
from layergraph_capture.binding import LazyElement
from layergraph_capture.interception.torch_modes import RecordingSwitch
from layergraph_capture.trackers.constants import Constants
from layergraph_capture.trackers.foreign_states import ForeignStates
from layergraph_capture.trackers.guards import Guards
from layergraph_capture.trackers.snapshot import StateSnapshot


class Tensors:
    """Tracks each tensor by identity.

    Args:
        recorder: records calls.
        switch: turns recording off for a call.
        state: the tensors of the model.
        constants: the tensors that the model has not registered.
        guards: records guards.
        foreign: recognizes the hidden states of other models.
        snapshot: saves tensors, and restores them after the run.

    Attributes:
        carried: the tensors that the model has kept from an earlier run, by ``id``.
    """

    def __init__(
        self,
        recorder: Recorder,
        switch: RecordingSwitch,
        state: StateTensors,
        constants: Constants,
        guards: Guards,
        foreign: ForeignStates,
        snapshot: StateSnapshot,
    ) -> None:
        self._recorder = recorder
        self._switch = switch
        self._unrecorded = switch.unrecorded
        self._state = state
        self._constants = constants
        self._guards = guards
        self._foreign = foreign
        self._snapshot = snapshot
        # Weak references, because a new tensor may get the id of a dead one.
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], TracedValue | LazyElement]] = {}
        self.carried: set[int] = set()

    def clear(self) -> None:
        """Forget all tensors."""
        self._known.clear()

    # --- identity ---

    def bind(self, tensor: torch.Tensor, value: TracedValue | LazyElement) -> None:
        """Bind a tensor to a value, or to an element of one."""
        self._known[id(tensor)] = weakref.ref(tensor), value
        if isinstance(value, TracedValue):
            self._switch.depth += 1
            value.rank = tensor.dim()
            value.dtype = _symbol(tensor.dtype)
            self._switch.depth -= 1

    def known(self, tensor: torch.Tensor) -> TracedValue | LazyElement | None:
        """Return the value of a tensor, or the function that reads the element; or None."""
        known = self._known.get(id(tensor))
        return None if known is None or known[0]() is not tensor else known[1]

    def bind_alike(self, tensor: torch.Tensor, value: TracedValue | LazyElement) -> None:
        """Bind a tensor to the value of an earlier tensor."""
        self._known[id(tensor)] = weakref.ref(tensor), value

    def value_of(self, tensor: torch.Tensor) -> TracedValue | None:
        """Return the value of a tensor; None if unknown."""
        known = self._known.get(id(tensor))
        if known is None or known[0]() is not tensor:
            return None
        value = known[1]
        if not isinstance(value, TracedValue):
            value = value()
            self.bind(tensor, value)
        return value

    def living(self) -> list[torch.Tensor]:
        """Return the tensors that are values of the graph."""
        known = [reference() for reference, _ in self._known.values()]
        return [each for each in known if each is not None]

    def call_of(self, result: Any) -> Call | None:
        """Return the call that returned a tensor."""
        value = self.value_of(result) if isinstance(result, torch.Tensor) else None
        return None if value is None else value.call

    def read(self, tensor: torch.Tensor) -> Value:
        """Return the graph value of a tensor: a traced value, or a tensor of the model.

        Raises:
            UnknownValueError: capture has not seen the origin of the tensor, or a graph cannot hold
                it.
        """
        return self.value_of(tensor) or self._read_state(tensor)

    def _read_state(self, tensor: torch.Tensor) -> StateRead:
        key = self._state.keys.get(id(tensor))
        if key is not None:
            return StateRead(key)
        self._state.refuse_unregistered(tensor)
        # The call that reads it may change it.
        self._unrecorded(self._snapshot.keep, (tensor,), {})
        is_foreign = tensor in self._foreign
        # To search the globals takes long.
        is_there = is_foreign or id(tensor) in self.carried or self._constants.holds(tensor)
        if not is_there:
            raise UnknownValueError(
                "a tensor whose origin capture does not see; make it with a function "
                "of torch, or register it with register_buffer"
            )
        reason = None if self._state.is_packed(tensor) else indescribable(tensor)
        if reason is not None:
            is_freed = is_plain(tensor) and unsuitable(tensor) is not None
            kind = UnrunnableError if is_freed else UnknownValueError
            raise kind(f"{self._constants.place(tensor)}: it {reason}")
        read = self._state.constant(tensor)
        if is_foreign:
            self._foreign.note(read)
        # Clone it, because the run may change it before the IR describes it.
        self._state.constants[read.key] = self._unrecorded(torch.clone, (tensor,), {})
        return read

    def is_state(self, tensor: object) -> bool:
        """Return whether an object is a tensor of the model."""
        return id(tensor) in self._state.keys

    @property
    def keys(self) -> Mapping[int, str]:
        """The state-dict key of each tensor of the model, by ``id``."""
        return self._state.keys

    def place_of(self, tensor: torch.Tensor) -> str | None:
        """Return the place of a tensor in the model or in the graph; None if it has none."""
        if id(tensor) in self._state.keys:
            return repr(self._state.keys[id(tensor)])
        return "a value of forward" if self.is_value(tensor) else None

    def is_value(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor is bound to a value, or to an element of one."""
        known = self._known.get(id(tensor))
        return known is not None and known[0]() is tensor

    def _is_known(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self._state.keys or self.is_value(tensor)

    def alias(self, tensor: torch.Tensor, value: TracedValue) -> torch.Tensor:
        """Return an alias: another object for the same tensor, bound to a new value.

        We track each tensor by identity. If an op returns its input unchanged (``contiguous()``),
        the model gets an alias, so that input and result remain two graph values. In the rebuilt
        model the op may return a new tensor.
        """
        alias: torch.Tensor = self._unrecorded(tensor.view_as, (tensor,), {})
        self.bind(alias, value)
        return alias

    # --- results ---

    def bound(self, result: Any, value: TracedValue, before: dict[int, int]) -> Any:
        """Return the result of a call, with its tensors bound to their values.

        Args:
            result: the result.
            value: its value.
            before: the version of each tensor argument before the call.
        """
        if isinstance(result, torch.Tensor):
            if not self._is_known(result):
                self.bind(result, value)
            elif before.get(id(result), version(result)) == version(result):
                return self.alias(result, value)
            elif id(result) not in self._state.keys:
                self.bind(result, value)
            return result
        if result is None or holds_no_tensor(result):
            return result
        return self._parts(result, self._recorder.late(), lambda: value, before)

    def _parts(
        self, result: Any, late: DeferredCall, whole: LazyElement, before: dict[int, int]
    ) -> Any:
        if isinstance(result, torch.Tensor):
            if not self._is_known(result):
                self.bind(result, whole)
            elif before.get(id(result), version(result)) == version(result):
                return self.alias(result, whole())
            return result
        if not isinstance(result, tuple | list | dict):
            if type(result) in _GUARDED:
                self._guards.expect(whole(), result)
            return result
        items = list(result.items() if isinstance(result, dict) else enumerate(result))
        parts = [self._parts(item, late, element(late, whole, key), before) for key, item in items]
        if type(result) not in (tuple, list) or are_same(parts, result):
            return result
        return type(result)(parts)

    def is_new_made(self, tensor: torch.Tensor) -> bool:
        """Return whether torch has just made a tensor with its own memory."""
        # Other owners of memory, such as numpy, may change it.
        return not self._is_known(tensor) and owns_its_storage(tensor)

    def fresh(self, func: Any, tensor: torch.Tensor) -> Any:
        """Record a tensor that torch makes from Python numbers in each call."""
        numbers = self._state.constant(self._unrecorded(torch.clone, (tensor,), {}))
        result = self._unrecorded(func, (tensor,), {})
        self.bind(result, self._recorder.call("function", "torch.clone", (numbers,), {}))
        return result

    # --- what the graph depends on ---

    def guard_shapes(self, args: Any, kwargs: Any) -> None:
        """Guard the shapes of tensors, because the graph depends on them."""
        for tensor in tensors_in((args, kwargs)):
            value = self.value_of(tensor)
            if value is not None and self._guards.is_new(("shape", value)):
                size = self._recorder.call("function", "torch.Tensor.size", (value,), {})
                self._guards.expect(size, self._unrecorded(_shape, (tensor,), {}))

    def guard_dtypes(self, args: Any, kwargs: Any) -> None:
        """Guard the dtypes of tensors, because the graph depends on them."""
        for tensor in tensors_in((args, kwargs)):
            value = self.value_of(tensor)
            if value is not None:
                dtype = _symbol(self._unrecorded(operator.attrgetter("dtype"), (tensor,), {}))
                self._guards.expect_call("torch.Tensor.dtype", (value,), dtype)


@functools.cache
def _symbol(dtype: torch.dtype) -> Symbol:
    return Symbol(str(dtype))


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def are_same(ones: Any, others: Any) -> bool:
    """Return whether two sequences hold the same objects."""
    return all(one is other for one, other in zip(ones, others, strict=True))


def versions(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[int, int]:
    """Return the version counter of each tensor among arguments, by ``id``."""
    given = [*args, *kwargs.values()] if kwargs else args
    return {id(each): version(each) for each in given if isinstance(each, torch.Tensor)}


def holds_no_tensor(result: Any) -> bool:
    """Return whether a result contains no tensor."""
    if isinstance(result, torch.Tensor):
        return False
    if isinstance(result, dict):
        result = result.values()
    elif not isinstance(result, _SEQUENCES):
        return True
    return all(map(holds_no_tensor, result))


_SEQUENCES = (tuple, list)
# Values of these types beside tensors in a result are guarded.
_GUARDED = frozenset({bool, int, float, complex, str, bytes})
