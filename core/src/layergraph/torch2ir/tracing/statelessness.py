"""Checks that a call of a model does not depend on changes that an earlier call made."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch

from layergraph.errors import CaptureError
from layergraph.ir import Value, map_leaves
from layergraph.ir.values import leaves
from layergraph.tensors.memory import same_bits
from layergraph.torch2ir.state.changes import Change
from layergraph.torch2ir.tracing.called_functions import (
    CHANGING,
    RESULTS_BY_SIZES,
    changes_its_first_argument,
    draws,
)
from layergraph.torch2ir.tracing.module_call import (
    Call,
    FunctionRead,
    StateRead,
    Trace,
    TracedValue,
    calls_in,
    values_in,
)
from layergraph.torch2ir.tracing.tracer import Tracer


def check_stateless(make: Callable[[], Tracer]) -> Trace:
    """Run a model; if its code changes its modules, run it again with these changes in place.

    The second run is skipped if earlier runs have shown that such changes affect nothing.

    Args:
        make: returns a new tracer.

    Raises:
        CaptureError: the run fails, changes the state dict by assignments, or the second run makes
            other calls.
    """
    running = make()
    trace = running.run()
    trace.changes = running.changes
    for change in trace.changes:
        is_held = running.policy.holds(change)
        if change.is_of_state_dict and not is_held:
            raise _refusal(running, [change])
    if not running.policy.allows(running.changes):
        _check_changes(make, trace, running.changes)
    return trace


def check_unaffected(make: Callable[[], Tracer], trace: Trace, changes: list[Change]) -> None:
    """Raise if a run makes other calls after the changes of another run.

    Args:
        make: returns a new tracer.
        trace: the record of the run without the changes.
        changes: the changes that the model's code made in the other run; at least one.

    Raises:
        CaptureError: the run makes other calls.
    """
    again = make()
    try:
        other = _run_after(again, trace, changes)
    except CaptureError:
        raise _refusal(again, changes) from None
    if not (
        _are_alike(trace, other)
        or again.policy.is_recomputed(trace, other, again.state_tensors.keys)
        or again.policy.is_left_to_calls(trace, other, changes)
    ):
        raise _refusal(again, changes)


def _check_changes(make: Callable[[], Tracer], trace: Trace, changes: list[Change]) -> None:
    """Raise if the changes of this call affect later calls."""
    if changes:
        check_unaffected(make, trace, changes)
    for calls in (0, 1):
        ahead = [(each, each.ahead(calls, _FAR)) for each in changes]
        counting = [each for each, later in ahead if later is not None]
        if counting:
            again = make()
            try:
                other = _run_after(again, trace, [later or each for each, later in ahead])
            except CaptureError:  # such a number never occurs
                continue
            if not (
                _are_alike(trace, other) or again.policy.is_left_to_calls(trace, other, changes)
            ):
                raise _refusal(again, changes, counting[0])


# A call count for "much later". Models act at every n-th call for small n, and count up to some
# warm-up; this count exceeds the usual warm-ups and is divisible by nearly all such n.
_FAR = math.lcm(*range(1, 41), 1000)


def _refusal(tracer: Tracer, changes: list[Change], named: Change | None = None) -> CaptureError:
    tracer.policy.note_refused(changes)
    return (named or changes[0]).refusal()


def _run_after(again: Tracer, trace: Trace, changes: list[Change]) -> Trace:
    again.follow(trace)
    again.carried = changes
    return again.run()


def _are_alike(trace: Trace, other: Trace) -> bool:
    """Return whether two runs made the same calls and returned the same values.

    Calls that have no effect and no reader, such as those of a metric that adds up its results,
    may differ.
    """
    ours, theirs = _Numbering(trace), _Numbering(other)
    calls = itertools.zip_longest(_needed(trace), _needed(other))
    for mine, yours in calls:
        if mine is None or yours is None or ours.of(mine) != theirs.of(yours):
            return False
    return ours.result == theirs.result and _hold_the_same(ours.constants, theirs.constants)


def _needed(trace: Trace) -> list[Call]:
    """Return the calls that have an effect, and those whose results these or the model read."""
    needed: list[Call] = []
    read = {*values_in(trace.root.result), *(each.condition for each in trace.decisions)}
    for call in reversed(list(calls_in(trace.root))):
        if call.value in read or _has_effect(call):
            needed.append(call)
            read.update(call.reads())
            for leaf in leaves(call.args, call.kwargs):
                if isinstance(leaf, FunctionRead):
                    read.update(values_in(leaf.scope.result))
    return needed[::-1]


def _has_effect(call: Call) -> bool:
    return (
        call.kind not in ("function", "same", "state")
        or (call.kind == "state" and bool(call.args))
        or bool(call.bodies)
        or draws(call)
        or changes_its_first_argument(call.target)
        or not CHANGING.isdisjoint(call.kwargs)
        or call.target.startswith("layergraph.")
        or call.target.endswith(("batch_norm", "instance_norm"))
    )


def _hold_the_same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return len(ours) == len(theirs) and all(a is b or same_bits(a, b) for a, b in pairs)


class _Numbering:
    """Texts of calls that are equal in equal runs: values are numbered in order.

    Attributes:
        constants: the tensors in the texts that the model has not registered, in order.
    """

    def __init__(self, trace: Trace) -> None:
        self.constants: list[torch.Tensor] = []
        self._numbers: dict[Value, str] = {}
        self._held = trace.constants
        self._root = trace.root
        for parameter in trace.parameters:
            self._number(parameter.value)

    @property
    def result(self) -> str:
        """Return the text of the model's result."""
        return repr(map_leaves(self._leaf, self._root.result))

    def of(self, call: Call) -> tuple[object, ...]:
        leaf = self._spec if call.target in RESULTS_BY_SIZES else self._leaf
        args, kwargs = (repr(map_leaves(leaf, each)) for each in (call.args, call.kwargs))
        self._number(call.value)
        return call.kind, call.target, call.value.scope.path, args, kwargs

    def _leaf(self, leaf: Value) -> Value:
        if isinstance(leaf, StateRead) and leaf.key in self._held:
            if leaf not in self._numbers:
                self.constants.append(self._held[leaf.key])
            return self._number(leaf)
        if isinstance(leaf, FunctionRead):
            # Its calls are compared one by one; what it takes is not a result of any of them.
            scope = leaf.scope
            said = repr(map_leaves(self._leaf, (scope.args, scope.result)))
            return f"function {scope.function} {said}"
        return self._number(leaf) if isinstance(leaf, TracedValue) else leaf

    def _spec(self, leaf: Value) -> Value:
        """Return the form of a leaf for a call that does not read the numbers of tensors."""
        held = self._held.get(leaf.key) if isinstance(leaf, StateRead) else None
        return self._leaf(leaf) if held is None else f"{held.dtype}{[*held.shape]}{held.device}"

    def _number(self, value: Value) -> str:
        return self._numbers.setdefault(value, f"%{len(self._numbers)}")
