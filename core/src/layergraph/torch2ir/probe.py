"""Looking for sizes that got lost: the model runs again on inputs of another size.

Python and numpy can take the value of an int without asking it, so that its origin is lost unseen:
``shape.numel()``, ``table[n]``, ``numpy.prod(shape)``. Then two runs on different sizes differ in
something that no size explains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from layergraph.errors import CaptureError
from layergraph.ir import Value as Plain
from layergraph.ir import map_leaves
from layergraph.torch2ir.arguments import Arguments
from layergraph.torch2ir.calls import Call, Scope, Trace, Value
from layergraph.torch2ir.guards import Change
from layergraph.torch2ir.run import Running

_ASSUMPTIONS = "layergraph.assume"


def probed(run: Callable[[Arguments], Running], arguments: Arguments) -> Trace:
    """Run a model, and hold it to those of its sizes that it turns out to depend on unseen.

    What the model does not accept tells nothing, nor does what breaks a written assumption.

    Args:
        run: makes a run on arguments.
        arguments: those that are captured.

    Raises:
        CaptureError: the run on these failed, or the model keeps something from call to call.
    """
    running = run(arguments)
    trace = running.run()
    if running.changes:
        _check_changes(run(arguments), trace, running.changes)
    held: dict[int, str] = {}
    for size in arguments.sizes() if running.has_sizes else ():
        try:
            other = run(arguments.resized(size)).run()
        except CaptureError:
            continue
        # Behind an assumption that does not hold, the two may differ.
        place = _difference(trace, other, excused=_ASSUMPTIONS)
        if place is not None:
            held[size] = place
    for size, place in held.items():
        where = f"a size of the inputs, whose way into {place} is not known,"
        arguments.hold(trace, size, where)
    return trace


def _check_changes(again: Running, trace: Trace, changes: list[Change]) -> None:
    """Raise if it matters to the next call what a model's code assigned in this one."""
    again.carried = changes
    try:
        other = again.run()
    except CaptureError:
        raise changes[0].refusal() from None
    if _difference(trace, other) is not None:
        raise changes[0].refusal()


def _difference(trace: Trace, other: Trace, *, excused: str = "") -> str | None:
    """Where two runs part, other than by a call that excuses it; None if they do not."""
    ours, theirs = _Numbering(trace), _Numbering(other)
    last = "the first call"
    for mine, yours in zip(_calls(trace.root), _calls(other.root), strict=False):
        last = mine.target
        if ours.of(mine) != theirs.of(yours):
            is_excused = excused and mine.target == yours.target and mine.target.startswith(excused)
            return None if is_excused else last
    results = ours.plain(trace.root.result), theirs.plain(other.root.result)
    alike = _count(trace) == _count(other) and results[0] == results[1]
    return None if alike else last


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


def _count(trace: Trace) -> int:
    return sum(1 for _ in _calls(trace.root))


class _Numbering:
    """Calls in a form that two runs share: values are numbered as they come about."""

    def __init__(self, trace: Trace) -> None:
        self._numbers: dict[Value, str] = {}
        for parameter in trace.parameters:
            self._number(parameter.value)

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
