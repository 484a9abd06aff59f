"""Tables that a model keeps for later calls, and that may be computed in each call instead.

:mod:`layergraph_capture.tables.recomputed` proves it from two records. For other tables, such as
one that grows with the longest input so far, later calls are the proof; the records say only
whether they can be one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from layergraph.ir import Value, map_leaves
from layergraph.ir.values import leaves
from layergraph.torch2ir.tracing.called_functions import (
    RESULTS_BY_SIZES,
    changes_its_first_argument,
    draws,
)
from layergraph.torch2ir.tracing.module_call import (
    Call,
    StateRead,
    Trace,
    TracedBody,
    TracedValue,
    calls_in,
)
from layergraph_capture.symbolic.picking import picks
from layergraph_capture.tables.recomputed import LIKE_ANOTHER


def may_recompute(
    trace: Trace, other: Trace, kept: Iterable[TracedValue], trained: Collection[str]
) -> bool:
    """Return whether two runs make the same calls with their inputs, and differ in tables at most.

    The tables depend on sizes only, and on tensors of the model that are not trained. Whether a
    later run reads the same numbers from them, the records do not say.

    Args:
        trace: the first run, which computes the tables.
        other: the run after it.
        kept: the values of the tensors that the first run keeps for later ones.
        trained: the keys of the tensors of the model that need gradients.
    """
    own = _Following(trace, trained)
    tables = {*kept, *own.written}
    return (
        bool(tables)
        and tables.isdisjoint(own.values)
        and own.calls == _Following(other, trained).calls
    )


def follow_from_sizes(
    trace: Trace, values: Iterable[TracedValue], trained: Collection[str]
) -> bool:
    """Return whether values depend on sizes only, and on tensors that are not trained.

    Args:
        trace: the run that computes them.
        values: the values.
        trained: the keys of the tensors of the model that need gradients.
    """
    return _Following(trace, trained).values.isdisjoint(values)


class _Following:
    """The values and calls that follow from numbers of inputs, trained tensors or random ones.

    Args:
        trace: the run.
        trained: the keys of trained tensors.

    Attributes:
        values: the values that do.
        calls: the calls with such values, in order; other values are left out of their arguments.
        written: the results of calls that change a tensor of the model in place, by other values.
    """

    def __init__(self, trace: Trace, trained: Collection[str]) -> None:
        self._trained = trained
        # An int counts as a size.
        self.values = {each.value for each in trace.parameters if each.value.number is None}
        self.calls: list[tuple[str, str, str, str]] = []
        self._numbers: dict[Value, str] = {}
        self.written: list[TracedValue] = []
        for call in calls_in(trace.root):
            self._add(call)

    def _add(self, call: Call) -> None:
        is_drawn = draws(call)
        if call.kind == "function" and call.target in RESULTS_BY_SIZES and not is_drawn:
            if picks(call.args[0]):
                self.values.add(call.value)
            return
        args = call.args[:1] if call.target in LIKE_ANOTHER else call.args
        read = leaves(args, call.kwargs, call.when)
        is_change = call.kind == "function" and changes_its_first_argument(call.target)
        is_own = call.kind in ("module", "mode") or call.target in self._trained
        if is_drawn or is_own or any(map(self._is_following, read)):
            given = repr(map_leaves(self._text, (call.args, call.kwargs)))
            self.values.add(call.value)
            self.calls.append((call.kind, call.target, call.value.scope.path, given))
            if is_change:
                self.values |= {each for each in _origins(call) if isinstance(each, TracedValue)}
        elif is_change and any(isinstance(each, StateRead) for each in _origins(call)):
            self.written.append(call.value)

    def _text(self, leaf: Value) -> Value:
        if not isinstance(leaf, TracedValue | StateRead):
            return leaf
        if not self._is_following(leaf):
            return "table"
        return self._numbers.setdefault(leaf, f"%{len(self._numbers)}")

    def _is_following(self, leaf: Value) -> bool:
        if isinstance(leaf, TracedValue):
            return leaf in self.values
        if isinstance(leaf, StateRead):
            return leaf.key in self._trained
        return isinstance(leaf, TracedBody)


def _origins(change: Call) -> set[TracedValue | StateRead]:
    """Return the values that may share memory with the first argument of a call."""
    found: set[TracedValue | StateRead] = set()
    pending: list[Value] = [change.args[0]]
    while pending:
        leaf = pending.pop()
        if isinstance(leaf, TracedValue | StateRead) and leaf not in found:
            found.add(leaf)
            call = leaf.call if isinstance(leaf, TracedValue) else None
            if call is not None and call.target not in RESULTS_BY_SIZES:
                pending += leaves(call.args[:1])
    return found
