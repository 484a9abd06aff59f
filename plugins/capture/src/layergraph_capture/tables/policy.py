"""The judgement of tables that a model keeps: the graph computes them in each call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.state.change_policy import ChangePolicy
from layergraph.torch2ir.state.changes import Change
from layergraph.torch2ir.tracing.module_call import Trace
from layergraph_capture.run_options import RunOptions
from layergraph_capture.tables.followed import may_recompute
from layergraph_capture.tables.recomputed import recomputes


class TablePolicy(ChangePolicy):
    """Lets changes stay that are tables of the model.

    Args:
        module_index: the model.
        options: the options of the run.
    """

    def __init__(self, module_index: ModuleIndex, options: RunOptions) -> None:
        self._module_index = module_index
        self._options = options

    def allows(self, changes: Sequence[Change], /) -> bool:
        """See :class:`ChangePolicy`."""
        knows = self._options.knows
        return knows is not None and knows(changes)

    def holds(self, change: Change, /) -> bool:
        """See :class:`ChangePolicy`."""
        is_held = self._options.rebound.holds(change)
        if is_held:
            self._options.doubts.append(change)
        return is_held

    def note_refused(self, changes: Sequence[Change], /) -> None:
        """See :class:`ChangePolicy`."""
        self._options.rebound.note(changes)

    def is_recomputed(self, trace: Trace, other: Trace, keys: Mapping[int, str], /) -> bool:
        """See :class:`ChangePolicy`."""
        kept = {keys[tensor]: value for tensor, value in trace.kept.items() if tensor in keys}
        return recomputes(trace, other, kept)

    def is_left_to_calls(self, trace: Trace, other: Trace, changes: Sequence[Change], /) -> bool:
        """See :class:`ChangePolicy`."""
        trained = self._module_index.trained_keys()
        is_possible = may_recompute(trace, other, trace.kept.values(), trained)
        if is_possible:
            self._options.doubts.extend(changes)
        return is_possible
