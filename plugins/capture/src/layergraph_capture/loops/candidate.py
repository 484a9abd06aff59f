"""A candidate for the record with loops, and its comparison with runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from layergraph.torch2ir.tracing.module_call import Trace, TracedValue
from layergraph_capture.loops.fit import Size
from layergraph_capture.loops.verify import OtherRunError, check_run
from layergraph_capture.loops.written import Rolled

InMode = Callable[[Trace], AbstractContextManager[None]]
"""A context that exchanges the calls of a record with those of the wanted mode."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A record with loops that runs confirm or refute.

    Attributes:
        record: the record.
        sizes: the sizes on which its loops depend.
        mode: exchanges the calls of a run with those of the wanted mode.
    """

    record: Rolled
    sizes: Sequence[Size]
    mode: InMode

    @property
    def values(self) -> list[TracedValue]:
        """Return the values of the sizes."""
        return [each.value for each in self.sizes]

    @property
    def is_uncertain(self) -> bool:
        """True if turns beyond those of the runs may make other calls."""
        return bool(self.record.uncertain) or any(each.is_plain for each in self.sizes)

    def compare(self, trace: Trace) -> None:
        """Raise unless the record makes the calls of a run.

        Raises:
            OtherRunError: the record makes other calls.
        """
        with self.mode(trace):
            check_run(self.record, trace, self.values)

    def is_like(self, trace: Trace) -> bool:
        """Return whether the record makes the calls of a run."""
        try:
            self.compare(trace)
        except OtherRunError:
            return False
        return True
