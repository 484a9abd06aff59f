"""Re-recording of one module call in the other mode of the model."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence

import torch

from layergraph.tensors.memory import version
from layergraph.torch2ir.tracing.module_call import (
    Call,
    ModuleCall,
    TracedValue,
    inside_out,
    values_in,
)
from layergraph.torch2ir.tracing.other_mode import ModeReading, mode_readings, take_mode_calls
from layergraph.torch2ir.tracing.recorder import Recorder


class Rerecording:
    """The re-recording of a module call.

    Args:
        recorder: the recorder.
        scope: the module call.
        given: its tensor arguments.

    Attributes:
        scope: the module call.
        replaced: its contents in the other mode.
        readings: the mode readings inside it.
    """

    def __init__(
        self, recorder: Recorder, scope: ModuleCall, given: Sequence[torch.Tensor]
    ) -> None:
        self.scope = scope
        self.readings: set[ModeReading] = set()
        self._given = given
        self._versions = _versions(given)
        self._values = {*values_in(*scope.args, *scope.kwargs.values()), *_from_outside(scope)}
        self._result = scope.result
        self.replaced = recorder.begin_again(scope)

    def put_back(self) -> None:
        """Restore the first recording of the module call."""
        self.replaced.swap()

    def done(self) -> bool:
        """End the re-recording, and restore the first recording.

        Returns:
            Whether the caller sees no difference except in numbers: the module reads the same
            values, changes none in place, and returns as many.
        """
        scope, scopes = self.scope, list(inside_out(self.scope))
        for each in scopes:
            each.settle()
        self.readings = mode_readings(take_mode_calls(scopes))
        is_closed = self._values.issuperset(_from_outside(scope))
        was, now = values_in(self._result), values_in(scope.result)
        same = dict(zip(was, now, strict=False))
        gives_as_many = len(was) == len(now) == sum(map(operator.is_, map(same.get, was), now))
        begin = self.replaced.start
        gives_own = all(one.position >= begin or one is other for one, other in same.items())
        scope.items += [
            Call("same", "", (other,), {}, one) for one, other in same.items() if one is not other
        ]
        scope.result = self._result
        self.replaced.swap()
        is_unchanged = _versions(self._given) == self._versions
        return is_closed and gives_as_many and gives_own and is_unchanged


def _from_outside(scope: ModuleCall) -> Iterator[TracedValue]:
    """Yield the values that a module call reads and that are older than the call."""
    for inside in inside_out(scope):
        for item in inside.items:
            for value in values_in(*item.args, *item.kwargs.values()):
                if value.position < scope.start:
                    yield value


def _versions(tensors: Sequence[torch.Tensor]) -> list[int]:
    with torch._C.DisableTorchFunction():
        return [version(each) for each in tensors]
