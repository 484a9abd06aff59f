"""A record with loops that may be the right one, and the runs that it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from layergraph.torch2ir.tracing.module_call import Trace, TracedValue
from layergraph_capture.loops.fit import Size
from layergraph_capture.loops.verify import OtherRunError, check_run
from layergraph_capture.loops.written import Rolled

InMode = Callable[[Trace], AbstractContextManager[None]]
"""Makes the calls of a record those of the mode that is wanted, for a while."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A record with loops that is compared with runs.

    Attributes:
        record: the record.
        sizes: the sizes on which its loops depend.
        mode: makes the calls of a run those of the mode that is wanted.
    """

    record: Rolled
    sizes: Sequence[Size]
    mode: InMode

    @property
    def values(self) -> list[TracedValue]:
        """The values of the sizes."""
        return [each.value for each in self.sizes]

    @property
    def is_uncertain(self) -> bool:
        """True if turns that no run had, or their number, may do something else."""
        return bool(self.record.uncertain) or any(each.is_plain for each in self.sizes)

    def compare(self, trace: Trace) -> None:
        """Raise if the record does something else than a run.

        Raises:
            OtherRunError: it does.
        """
        with self.mode(trace):
            check_run(self.record, trace, self.values)

    def is_like(self, trace: Trace) -> bool:
        """Return whether the record does what a run does."""
        try:
            self.compare(trace)
        except OtherRunError:
            return False
        return True
