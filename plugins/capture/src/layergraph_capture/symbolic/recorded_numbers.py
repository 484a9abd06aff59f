"""The values of symbolic numbers in the graph, computed where code first uses a number."""

from __future__ import annotations

from layergraph.literals import UnknownValueError
from layergraph.torch2ir.tracing.module_call import DeferredCall, ModuleCall, TracedValue
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.symbolic.symbolic_int import SymbolicNumber


class RecordedNumbers:
    """Records the computation of numbers.

    Args:
        recorder: records the calls.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._recorded: dict[int, tuple[SymbolicNumber, TracedValue]] = {}

    def clear(self) -> None:
        """Forget all numbers."""
        self._recorded.clear()

    def note(self, number: SymbolicNumber, value: TracedValue) -> None:
        """Record the value of a number."""
        self._recorded[id(number)] = number, _with_number(value, number)

    def value(self, number: SymbolicNumber) -> TracedValue:
        """Return the value of a number; record its computation, and that of those it reads.

        Raises:
            UnknownValueError: a number is of no call that the graph can read here.
        """
        pending = [number]
        while pending:
            number = pending[-1]
            if self._known(number) is not None:
                pending.pop()
                continue
            name, *args = number.origin
            missing = [
                arg for arg in args if isinstance(arg, SymbolicNumber) and self._known(arg) is None
            ]
            if missing:
                pending += missing
                continue
            plain_args = [
                self._known(arg) if isinstance(arg, SymbolicNumber) else arg for arg in args
            ]
            self.note(number, self._recorder.call("function", name, tuple(plain_args), {}))
            pending.pop()
        result = self._known(number)
        if result is None:
            raise UnknownValueError(f"{number.plain()!r}")
        return result

    def _known(self, number: SymbolicNumber) -> TracedValue | None:
        if isinstance(number.origin[0], DeferredCall):
            late: DeferredCall = number.origin[0]
            target, *args = number.origin[1:]
            return _with_number(late.call((target, *args), target, tuple(args)), number)
        known = self._recorded.get(id(number))
        if known is None or known[0] is not number:
            return None
        scope: ModuleCall | None = self._recorder.scope
        while scope is not None and scope is not known[1].scope:
            scope = scope.parent
        return known[1] if scope is not None else None


def _with_number(value: TracedValue, number: SymbolicNumber) -> TracedValue:
    if type(number.value) is int:
        value.number = number.value
    return value
