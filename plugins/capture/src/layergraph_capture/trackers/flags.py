"""Buffers by which code branches, and that it changes in place: ``self.initialized``."""

from __future__ import annotations

from dataclasses import dataclass, field

from layergraph.ir import Value
from layergraph.torch2ir.tracing.module_call import StateRead
from layergraph_capture.trackers.origins import origins


@dataclass(slots=True)
class Flags:
    """The flags of a model, for all runs of a capture.

    A question about a buffer is a guard: the model takes one way, always. If the run itself changes
    the buffer, the next call takes the other way, so that the question is a decision.

    Attributes:
        followed: the keys of the buffers about which questions are decisions.
    """

    followed: frozenset[str] = frozenset()
    _found: set[str] = field(default_factory=set)

    def note(self, asked: set[str], changed: set[str]) -> None:
        """Note the buffers that a run has asked about, and those that it has changed."""
        self._found |= asked & changed

    def adopt(self) -> bool:
        """Let questions about the noted flags be decisions; return whether there are new ones."""
        new = self._found - self.followed
        self.followed |= new
        return bool(new)


def keys_read(value: Value) -> set[str]:
    """Return the keys of the tensors of the model that a value is computed from."""
    return {each.key for each in origins(value) if isinstance(each, StateRead)}
