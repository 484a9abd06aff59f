"""The guards of a run, each recorded once per module call."""

from __future__ import annotations

from typing import Any

from layergraph.ir import Value
from layergraph.ir.values import leaves
from layergraph.tensors.memory import version
from layergraph.torch2ir.tracing.lines import code_place
from layergraph.torch2ir.tracing.module_call import Call, ModuleCall, StateRead, TracedValue
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.trackers.changed_memory import ChangedMemory

# Functions whose results change with the numbers in a tensor.
_NUMBERS = frozenset("allclose contains equal is_nonzero item tolist".split())

# Functions whose results depend on their arguments only.
_FIXED = frozenset(
    {
        *(f"torch.{name}" for name in "arange clone eye full linspace ones tensor zeros".split()),
        *(f"torch.Tensor.{name}" for name in "add div mul sub neg unbind view reshape to".split()),
        "operator.getitem",
    }
)


class Guards:
    """Records guards.

    Args:
        recorder: records the guards.

    Attributes:
        changes_in_place: whether the run has changed a tensor in place.
        changes_state: whether a layer may have changed its buffers, in either mode.
        changed: what these changes may affect.
        comparisons: the guarded comparisons of numbers, and their results.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._known: dict[ModuleCall, set[Any]] = {}
        self.changes_in_place = False
        self.changes_state = False
        self.changed = ChangedMemory()
        self.comparisons: list[tuple[TracedValue, bool]] = []

    @property
    def _changes_numbers(self) -> bool:
        """Return True to repeat guards of numbers, because a changed tensor is still one value."""
        return self.changes_in_place or self.changes_state

    def note_changes(
        self, args: Any, before: dict[int, int], given: Value, *, is_known: bool
    ) -> None:
        """Record whether a call has changed a tensor in place.

        Args:
            args: the arguments of the call.
            before: the versions of tensors before the call, by ``id``.
            given: the graph values of all its arguments.
            is_known: whether the call changes one by its definition; inference tensors have no
                version counter.
        """
        if is_known or any(
            version(each) != before[id(each)] for each in args if id(each) in before
        ):
            self.changes_in_place = True
            self.changed.add(given)

    def is_fixed(self, value: Value) -> bool:
        """Return whether a value is the same for all inputs and all states of the model."""
        pending = [value]
        seen: set[TracedValue] = set()
        while pending and not self.changes_in_place:
            leaf = pending.pop()
            if isinstance(leaf, StateRead) and not leaf.key.startswith(":"):
                return False
            if isinstance(leaf, TracedValue) and leaf not in seen:
                seen.add(leaf)
                if leaf.call is None or leaf.call.target not in _FIXED:
                    return False
                pending += leaves(leaf.call.args, leaf.call.kwargs)
        return not pending

    def is_new(self, key: Any) -> bool:
        """Return whether the current module call and those around it have no such guard yet."""
        scope: ModuleCall | None = self._recorder.scope
        while scope is not None:
            if key in self._known.get(scope, ()):
                return False
            scope = scope.parent
        self._known.setdefault(self._recorder.scope, set()).add(key)
        return True

    def drop(self, key: Any, guard: Call) -> None:
        """Remove the last guard of a comparison, which a weaker one replaces.

        Args:
            key: the key under which the guard is known.
            guard: the call that records it.
        """
        self._known[self._recorder.scope].discard(key)
        self._recorder.remove(guard)
        self.comparisons = [pair for pair in self.comparisons if pair[0] is not guard.args[0]]

    def forget(self, scope: ModuleCall) -> None:
        """Forget the guards of a module call."""
        self._known.pop(scope, None)

    def expect(self, value: Value, result: Value) -> None:
        """Guard that a value equals its value now."""
        args = (value, result, code_place())
        self._recorder.call("function", "layergraph.assume", args, {})
        if isinstance(value, TracedValue) and isinstance(result, bool):
            self.comparisons.append((value, result))

    def expect_truth(self, value: Value, truth: bool, *otherwise: str) -> None:
        """Guard the truth value of a tensor.

        Args:
            value: the tensor.
            truth: its truth value now.
            otherwise: a message about the other way.
        """
        if self._changes_numbers or self.is_new(("truth", value)):
            args = (value, truth, code_place(), *otherwise)
            self._recorder.call("function", "layergraph.assume_truth", args, {})

    def expect_length(self, value: Value, length: int) -> None:
        """Guard the length of a sequence that a function returns, because sizes may decide it."""
        args = (value, length, code_place())
        self._recorder.call("function", "layergraph.assume_length", args, {})

    def expect_device(self, value: Value, kind: str, is_there: bool) -> None:
        """Guard whether a tensor is on a type of device."""
        if self.is_new(("device", value, kind)):
            args = (value, kind, is_there, code_place())
            self._recorder.call("function", "layergraph.assume_device", args, {})

    def expect_call(
        self,
        name: str,
        args: tuple[Value, ...],
        result: Value,
        kwargs: dict[str, Value] | None = None,
    ) -> None:
        """Guard the result of a function by which the model may branch."""
        named = kwargs or {}
        is_again = self._changes_numbers and name.rpartition(".")[2] in _NUMBERS
        if is_again or self._is_new_call(name, args, named):
            self.expect(self._recorder.call("function", name, args, named), result)

    def _is_new_call(self, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> bool:
        try:
            return self.is_new((name, *args, *kwargs.items()))
        except TypeError:  # an argument is a list
            return True
