"""The judgement of changes that the code of a model makes in a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from layergraph.torch2ir.state.changes import Change

if TYPE_CHECKING:
    from layergraph.torch2ir.tracing.module_call import Trace


class ChangePolicy:
    """Tells which changes of a run may stay, because the graph makes up for them.

    The base knows none. A way of tracing that does extends it.
    """

    def allows(self, _changes: Sequence[Change], /) -> bool:
        """Return whether earlier runs have shown that such changes affect no later run."""
        return False

    def holds(self, _change: Change, /) -> bool:
        """Return whether the graph makes the change, too."""
        return False

    def note_refused(self, _changes: Sequence[Change], /) -> None:
        """Note that changes are refused: a later capture may let the graph make them."""

    def is_recomputed(self, _trace: Trace, _other: Trace, _keys: Mapping[int, str], /) -> bool:
        """Return whether the graph computes in each call what the later of two runs reads.

        Args:
            _trace: the first run.
            _other: the run after it, which starts with its changes.
            _keys: the keys of the tensors that the later run may read, by ``id``.
        """
        return False

    def is_left_to_calls(self, _trace: Trace, _other: Trace, _changes: Sequence[Change], /) -> bool:
        """Return whether later calls of the IR and of the model will show that the runs agree.

        Args:
            _trace: the first run.
            _other: the run after it, which starts with its changes.
            _changes: the changes that the first run made.
        """
        return False
