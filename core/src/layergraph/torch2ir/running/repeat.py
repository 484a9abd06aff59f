"""Capture a model again, to see whether a call depends on what an earlier one left behind."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from layergraph.errors import CaptureError
from layergraph.ir import Value as Plain
from layergraph.ir import map_leaves
from layergraph.torch2ir.calls import Call, Scope, Trace, Value
from layergraph.torch2ir.capture import Capture
from layergraph.torch2ir.changes import Change


def steady(make: Callable[[], Capture]) -> Trace:
    """Run a model; where its code assigns to its modules, run it again with that in place.

    Args:
        make: makes a run.

    Raises:
        CaptureError: the run failed, or the second one does something else.
    """
    running = make()
    trace = running.run()
    if running.changes:
        _check_changes(make(), trace, running.changes)
    return trace


def _check_changes(again: Capture, trace: Trace, changes: list[Change]) -> None:
    """Raise if it matters to the next call what a model's code assigned in this one."""
    again.carried = changes
    try:
        other = again.run()
    except CaptureError:
        raise changes[0].refusal() from None
    if not _are_alike(trace, other):
        raise changes[0].refusal()


def _are_alike(trace: Trace, other: Trace) -> bool:
    """Whether two runs did and returned the same."""
    ours, theirs = _Numbering(trace), _Numbering(other)
    calls = itertools.zip_longest(_calls(trace.root), _calls(other.root))
    for mine, yours in calls:
        if mine is None or yours is None or ours.of(mine) != theirs.of(yours):
            return False
    return ours.result == theirs.result


def _calls(scope: Scope) -> Iterator[Call]:
    stack: list[Iterator[object]] = [iter(scope.items)]
    while stack:
        item = next(stack[-1], None)
        if item is None:
            stack.pop()
        elif isinstance(item, Scope):
            stack.append(iter(item.items))
        elif isinstance(item, Call):
            yield item


class _Numbering:
    """Calls in a form that two runs share: values are numbered as they come about."""

    def __init__(self, trace: Trace) -> None:
        self._numbers: dict[Value, str] = {}
        self._root = trace.root
        for parameter in trace.parameters:
            self._number(parameter.value)

    @property
    def result(self) -> str:
        """What the model returns."""
        return self.plain(self._root.result)

    def of(self, call: Call) -> tuple[object, ...]:
        args, kwargs = self.plain(call.args), self.plain(call.kwargs)
        self._number(call.value)
        return call.kind, call.target, call.value.scope.path, args, kwargs

    def plain(self, value: Plain) -> str:
        return repr(map_leaves(self._leaf, value))

    def _leaf(self, leaf: Plain) -> Plain:
        return self._number(leaf) if isinstance(leaf, Value) else leaf

    def _number(self, value: Value) -> str:
        return self._numbers.setdefault(value, f"%{len(self._numbers)}")
