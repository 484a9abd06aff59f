"""Looking for sizes that got lost: the model runs again on inputs of another size.

Python and numpy can take the value of an int without asking it, so that its origin is lost unseen:
``shape.numel()``, ``table[n]``, ``numpy.prod(shape)``. Then two runs on different sizes differ in
something that no size explains.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from layergraph.errors import CaptureError
from layergraph.ir import Value as Plain
from layergraph.ir import map_leaves
from layergraph.torch2ir.arguments import Arguments
from layergraph.torch2ir.calls import Call, Scope, Trace, Value
from layergraph.torch2ir.guards import Change
from layergraph.torch2ir.run import Running

_ASSUMPTIONS = "layergraph.assume"


class Probed:
    """Runs a model, and holds it to those of its sizes that it turns out to depend on unseen.

    What the model does not accept tells nothing, nor does what breaks a written assumption.

    Args:
        run: makes a run on arguments.
        arguments: those that are captured.
    """

    def __init__(self, run: Callable[[Arguments], Running], arguments: Arguments) -> None:
        self._run = run
        self._arguments = arguments
        self._held: dict[int, str] | None = None

    def __call__(self) -> Trace:
        """Run the model as it stands. Only the first run is probed; what it tells holds for all.

        Raises:
            CaptureError: the run failed, or the model keeps something from call to call.
        """
        running = self._run(self._arguments)
        trace = running.run()
        if running.changes:
            _check_changes(self._run(self._arguments), trace, running.changes)
        if self._held is None:
            self._held = self._lost(trace) if running.has_sizes else {}
        for size, place in self._held.items():
            where = f"a size of the inputs, whose way into {place} is not known,"
            self._arguments.hold(trace, size, where)
        return trace

    def _lost(self, trace: Trace) -> dict[int, str]:
        """The sizes that the model depends on unseen, each with the call that shows it."""
        sizes = self._arguments.sizes()
        if len(sizes) > 1 and self._compared(trace, *sizes) == "":
            return {}
        places = {size: self._compared(trace, size) for size in sizes}
        return {size: place for size, place in places.items() if place}

    def _compared(self, trace: Trace, *sizes: int) -> str | None:
        """Where a run on longer inputs differs; empty if it does not, None if it tells nothing."""
        try:
            other = self._run(self._arguments.resized(sizes)).run()
        except CaptureError:
            return None
        place = _difference(trace, other)
        # Behind an assumption that does not hold, the two may differ.
        return None if place is not None and place.startswith(_ASSUMPTIONS) else place or ""


def _check_changes(again: Running, trace: Trace, changes: list[Change]) -> None:
    """Raise if it matters to the next call what a model's code assigned in this one."""
    again.carried = changes
    try:
        other = again.run()
    except CaptureError:
        raise changes[0].refusal() from None
    if _difference(trace, other) is not None:
        raise changes[0].refusal()


def _difference(trace: Trace, other: Trace) -> str | None:
    """The function at which two runs part; None if they do not."""
    ours, theirs = _Numbering(trace), _Numbering(other)
    for mine, yours in itertools.zip_longest(_calls(trace.root), _calls(other.root)):
        if mine is None or yours is None:
            return str((mine or yours).target)
        if ours.of(mine) != theirs.of(yours):
            return str(mine.target)
    return None if ours.result == theirs.result else "what it returns"


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
