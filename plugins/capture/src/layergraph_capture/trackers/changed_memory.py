"""The values of a run whose memory may have changed in place."""

from __future__ import annotations

from layergraph.ir import Value
from layergraph.ir.values import leaves
from layergraph.torch2ir.tracing.called_functions import RESULTS_BY_SIZES
from layergraph.torch2ir.tracing.module_call import StateRead, TracedValue
from layergraph_capture.trackers.origins import origins

_PLAIN = frozenset(f"torch.Tensor.{name}" for name in "dim size stride numel dtype device".split())

# Inputs and tensors of the model may share memory, so they count as one.
_OUTSIDE = "outside"


class ChangedMemory:
    """Tells which values changes in place do not affect.

    Two values share memory only if one of them, or a value that both are computed from, owns it.
    """

    def __init__(self) -> None:
        self._new: list[Value] = []
        self._owners: set[object] = set()
        # Values that these changes do not affect.
        self._unaffected: set[TracedValue] = set()

    def add(self, value: Value) -> None:
        """Record that a call may have changed tensors among its arguments."""
        self._new.append(value)

    def may_reach(self, value: Value) -> bool:
        """Return whether a change may affect a value, or a value that it is computed from."""
        self._find_owners()
        if not self._owners:
            return False
        seen: set[TracedValue] = set()
        for each in origins(value, self._unaffected):
            if _owner(each) in self._owners:
                return True
            if isinstance(each, TracedValue):
                seen.add(each)
        self._unaffected |= seen
        return False

    def _find_owners(self) -> None:
        pending = leaves(self._new)
        if self._new:
            self._unaffected.clear()
        self._new = []
        while pending:
            leaf = pending.pop()
            owner = _owner(leaf)
            call = leaf.call if isinstance(leaf, TracedValue) else None
            if owner is None or owner in self._owners or (call is not None and _is_plain(leaf)):
                continue
            self._owners.add(owner)
            if call is not None and call.target not in RESULTS_BY_SIZES:
                pending += leaves(call.args, call.kwargs)


def _owner(leaf: object) -> object:
    """Return what may own the memory of a value; None for a plain value."""
    if isinstance(leaf, StateRead) or (isinstance(leaf, TracedValue) and leaf.call is None):
        return _OUTSIDE
    return leaf if isinstance(leaf, TracedValue) else None


def _is_plain(value: TracedValue) -> bool:
    """Return whether a value is no tensor: a number of a size, for example."""
    return value.number is not None or (value.call is not None and value.call.target in _PLAIN)
