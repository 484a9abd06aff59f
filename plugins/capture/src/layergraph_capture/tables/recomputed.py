"""Tensors that a model caches for later calls, such as a table of positions.

The first call computes the table, the second call reads it. A graph may compute the table in each
call if the table depends on sizes only, and if the model compares all those sizes of its inputs
before it reads the table. The sizes of other tensors follow from those of the inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from layergraph.ir import Value, map_leaves
from layergraph.ir.values import leaves
from layergraph.tensors.memory import same_bits
from layergraph.torch2ir.tracing.called_functions import RESULTS_BY_SIZES, draws
from layergraph.torch2ir.tracing.module_call import (
    Call,
    StateRead,
    Trace,
    TracedValue,
    calls_in,
)
from layergraph_capture.ways.value_numbers import named_value

_SIZE = "torch.Tensor.size"
_READS = frozenset({"torch.Tensor.dim", "torch.Tensor.dtype", "torch.Tensor.device"})
# They read only the shape or the dtype of their second argument.
LIKE_ANOTHER = frozenset(
    f"torch.Tensor.{name}" for name in "expand_as reshape_as to type_as view_as".split()
)
_GUARD = "layergraph.assume"


def recomputes(trace: Trace, other: Trace, kept: Mapping[str, TracedValue]) -> bool:
    """Return whether two runs differ only in tables that one computes and the later one reads.

    Args:
        trace: the first run.
        other: the run after it.
        kept: by the key of each constant of the later run, the value that the first run computed.
    """
    feeding = _feeding(kept.values())
    return feeding is not None and _Comparison(trace, other, kept, feeding).holds()


def _feeding(kept: Iterable[TracedValue]) -> set[TracedValue] | None:
    """Return the values that the given ones depend on; None if they depend on more than sizes."""
    found: set[TracedValue] = set()
    pending: list[Value] = list(kept)
    while pending:
        leaf = pending.pop()
        if isinstance(leaf, StateRead) and not leaf.key.startswith(":"):
            return None
        if not isinstance(leaf, TracedValue) or leaf in found:
            continue
        call = leaf.call
        if call is None or call.kind not in ("function", "same") or draws(call):
            return None
        found.add(leaf)
        if call.target in LIKE_ANOTHER:
            pending.append(call.args[0])
        elif call.target not in RESULTS_BY_SIZES:
            pending += leaves(call.args, call.kwargs)
    return found


class _Comparison:
    """The comparison of two runs, call by call."""

    def __init__(
        self,
        trace: Trace,
        other: Trace,
        kept: Mapping[str, TracedValue],
        feeding: set[TracedValue],
    ) -> None:
        self._trace, self._other = trace, other
        self._kept = kept
        self._feeding = feeding
        pairs = zip(other.parameters, trace.parameters, strict=False)
        # The value of the first run for each value of the other run.
        self._known = {theirs.value: mine.value for theirs, mine in pairs}
        # Constants have other numbers in each run.
        self._constants = {
            key: next(
                (
                    StateRead(own)
                    for own, each in trace.constants.items()
                    if same_bits(each, tensor)
                ),
                None,
            )
            for key, tensor in other.constants.items()
        }

    def holds(self) -> bool:
        """Return whether the runs differ only in the tables."""
        mine = list(_with_guards(self._trace))
        done = 0
        compared: set[str] = set()
        for call in _with_guards(self._other):
            place = self._place(mine, done, self._text(call, self._theirs))
            if place is not None:
                self._known[call.value] = mine[place].value
                done = place + 1
            elif not _is_question(call) or (not self._kept and call.target.startswith(_GUARD)):
                # If no table is kept, a guard that only the later run has means that an input
                # changes its path.
                return False
            else:
                compared |= {self._size_text(each, self._theirs) for each in _compared_sizes(call)}
        result = repr(map_leaves(self._theirs, self._other.root.result))
        return (
            all(map(self._is_left_out, mine[done:]))
            and result == repr(map_leaves(named_value, self._trace.root.result))
            and self._are_enough(compared)
        )

    def _are_enough(self, compared: set[str]) -> bool:
        """Return whether the model compares all sizes that its tables depend on.

        Args:
            compared: the texts of the sizes that only the later run compares.
        """
        sizes = [call for each in self._feeding if (call := each.call) and call.target == _SIZE]
        inputs = {each.value for each in self._trace.parameters}
        texts = {self._size_text(call, named_value) for call in sizes}
        of_inputs = {self._size_text(call, named_value) for call in sizes if call.args[0] in inputs}
        return not texts or (of_inputs <= compared and not texts.isdisjoint(compared))

    def _size_text(self, call: Call, leaf: object) -> str:
        return repr(map_leaves(leaf, call.args))  # type: ignore[arg-type]

    def _place(self, calls: list[Call], start: int, text: str) -> int | None:
        """Return the index of the call with this text, after calls that may be skipped; or None."""
        for place in range(start, len(calls)):
            if self._text(calls[place], named_value) == text:
                return place
            if not self._is_left_out(calls[place]):
                return None
        return None

    def _is_left_out(self, call: Call) -> bool:
        return call.value in self._feeding or _is_question(call)

    def _theirs(self, leaf: Value) -> Value:
        """Return the first run's value for a value of the other run."""
        if isinstance(leaf, StateRead) and leaf.key in self._kept:
            return named_value(self._kept[leaf.key])
        if isinstance(leaf, StateRead) and leaf.key.startswith(":"):
            return self._constants[leaf.key]
        if isinstance(leaf, TracedValue):
            return named_value(self._known.get(leaf, leaf))
        return leaf

    def _text(self, call: Call, leaf: object) -> str:
        said = map_leaves(leaf, (call.args, call.kwargs))  # type: ignore[arg-type]
        return repr((call.kind, call.target, call.value.scope.path, said))


def _with_guards(trace: Trace) -> Iterator[Call]:
    """Yield the calls of a run; a decision by a size is a guard here, as the run goes one way."""
    by_size = {each.condition: each for each in trace.decisions if each.is_by_size}
    for call in calls_in(trace.root):
        yield call
        decision = by_size.get(call.value)
        if decision is not None:
            value = TracedValue(call.value.position, call.value.scope, "assume")
            args = (call.value, decision.answer, decision.where)
            yield Call("function", _GUARD, args, {}, value)


def _is_question(call: Call) -> bool:
    """Return whether a call is a guard, or reads or computes a size for one."""
    return call.is_late or call.target in _READS or call.target.startswith(("operator.", _GUARD))


def _compared_sizes(call: Call) -> list[Call]:
    """Return the calls that read the sizes which a guard compares."""
    if call.target != _GUARD:
        return []
    value, expected = call.args[:2]
    asked = value.call if isinstance(value, TracedValue) else None
    if asked is None or asked.target == _SIZE:
        return [] if asked is None else [asked]
    if {"operator.eq": True, "operator.ne": False}.get(asked.target) is not expected:
        return []
    read = [each.call for each in leaves(asked.args) if isinstance(each, TracedValue)]
    return [each for each in read if each is not None and each.target == _SIZE]
