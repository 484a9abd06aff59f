"""Checks that a call of a model does not depend on changes that an earlier call made."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch

from layergraph.errors import CaptureError
from layergraph.ir import Value, map_leaves
from layergraph.tensors.memory import same_bits
from layergraph.torch2ir.state.changes import Change
from layergraph.torch2ir.tracing.caches import recomputes
from layergraph.torch2ir.tracing.module_call import (
    Call,
    FunctionRead,
    Trace,
    TracedValue,
    calls_in,
)
from layergraph.torch2ir.tracing.tracer import Tracer


def check_stateless(make: Callable[[], Tracer]) -> Trace:
    """Run a model; if its code changes its modules, run it again with these changes in place.

    The second run is skipped if earlier runs have shown that such changes affect nothing.

    Args:
        make: returns a new tracer.

    Raises:
        CaptureError: the run fails, or the second run makes other calls.
    """
    running = make()
    trace = running.run()
    trace.changes = running.changes
    if not running.is_known(running.changes):
        _check_changes(make, trace, running.changes)
    return trace


def check_unaffected(make: Callable[[], Tracer], trace: Trace, changes: list[Change]) -> None:
    """Raise if a run makes other calls after the changes of another run.

    Args:
        make: returns a new tracer.
        trace: the record of the run without the changes.
        changes: the changes that the model's code made in the other run.

    Raises:
        CaptureError: the run makes other calls.
    """
    if not changes:
        return
    again = make()
    try:
        other = _run_after(again, changes)
    except CaptureError:
        raise changes[0].refusal() from None
    keys = again.state_tensors.keys
    kept = {keys[tensor]: value for tensor, value in trace.kept.items() if tensor in keys}
    if not _are_alike(trace, other) and not recomputes(trace, other, kept):
        raise changes[0].refusal()


def _check_changes(make: Callable[[], Tracer], trace: Trace, changes: list[Change]) -> None:
    """Raise if the changes of this call affect later calls."""
    check_unaffected(make, trace, changes)
    for calls in (0, 1):
        ahead = [(each, each.ahead(calls, _FAR)) for each in changes]
        counting = [each for each, later in ahead if later is not None]
        if counting:
            try:
                other = _run_after(make(), [later or each for each, later in ahead])
            except CaptureError:  # such a number never occurs
                continue
            if not _are_alike(trace, other):
                raise counting[0].refusal()


# A call count for "much later". Models act at every n-th call for small n, and count up to some
# warm-up; this count exceeds the usual warm-ups and is divisible by nearly all such n.
_FAR = math.lcm(*range(1, 41), 1000)


def _run_after(again: Tracer, changes: list[Change]) -> Trace:
    again.carried = changes
    return again.run()


def _are_alike(trace: Trace, other: Trace) -> bool:
    """Return whether two runs made the same calls and returned the same values."""
    ours, theirs = _Numbering(trace), _Numbering(other)
    calls = itertools.zip_longest(calls_in(trace.root), calls_in(other.root))
    for mine, yours in calls:
        if mine is None or yours is None or ours.of(mine) != theirs.of(yours):
            return False
    return ours.result == theirs.result and _hold_the_same(trace.constants, other.constants)


def _hold_the_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[key] is theirs[key] or same_bits(ours[key], theirs[key]) for key in ours
    )


class _Numbering:
    """Texts of calls that are equal in equal runs: values are numbered in order."""

    def __init__(self, trace: Trace) -> None:
        self._numbers: dict[TracedValue, str] = {}
        self._root = trace.root
        for parameter in trace.parameters:
            self._number(parameter.value)

    @property
    def result(self) -> str:
        """Return the text of the model's result."""
        return self.plain(self._root.result)

    def of(self, call: Call) -> tuple[object, ...]:
        args, kwargs = self.plain(call.args), self.plain(call.kwargs)
        self._number(call.value)
        return call.kind, call.target, call.value.scope.path, args, kwargs

    def plain(self, value: Value) -> str:
        return repr(map_leaves(self._leaf, value))

    def _leaf(self, leaf: Value) -> Value:
        if isinstance(leaf, FunctionRead):
            # Its calls are compared one by one; what it takes is not a result of any of them.
            scope = leaf.scope
            return f"function {scope.function} {self.plain((scope.args, scope.result))}"
        return self._number(leaf) if isinstance(leaf, TracedValue) else leaf

    def _number(self, value: TracedValue) -> str:
        return self._numbers.setdefault(value, f"%{len(self._numbers)}")
