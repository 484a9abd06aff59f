"""Detection of ranks that depend on sizes: ``squeeze`` drops dimensions of size 1."""

from __future__ import annotations

import functools
from itertools import starmap

from layergraph.ir import Value
from layergraph.torch2ir.tracing.module_call import Kind, TracedValue
from layergraph.torch2ir.tracing.recorder import Recorder

# The rank of a result of these packages' functions follows from the ranks of the arguments.
_BY_RANKS = frozenset("builtins layergraph math operator torch".split())


class Ranks:
    """Finds for each value whether its rank depends on sizes.

    Args:
        recorder: the recorder of the run.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        # The calls that have been looked at, and whether the rank of a result may differ.
        self._looked: set[tuple[Kind, str]] = set()
        self._have_open = False
        # Each entry keeps its value alive, so that ids stay unique.
        self._known: dict[int, tuple[TracedValue, bool]] = {}

    def follows_from_sizes(self, value: Value) -> bool:
        """Return whether a value may have another rank for other sizes of the inputs."""
        if not isinstance(value, TracedValue) or not self._may_differ():
            return False
        pending = [value]
        while pending:
            current = pending[-1]
            call = current.call
            is_open = call is not None and _is_open(call.kind, call.target)
            read = [] if call is None or is_open else call.reads()
            missing = [each for each in read if id(each) not in self._known]
            if missing:
                pending += missing
                continue
            is_open = is_open or any(self._known[id(each)][1] for each in read)
            self._known[id(current)] = current, is_open
            pending.pop()
        return self._known[id(value)][1]

    def _may_differ(self) -> bool:
        """Return whether any call so far has a result whose rank may differ; few models have one.

        Deferred calls read sizes, dtypes and devices.
        """
        if not self._have_open:
            new = self._recorder.targets - self._looked
            self._looked |= new
            self._have_open = any(starmap(_is_open, new))
        return self._have_open


@functools.lru_cache(maxsize=4096)
def _is_open(kind: str, target: str) -> bool:
    """Return whether the rank of a call's result may differ for other sizes."""
    home, *names = target.split(".")
    is_of_others = kind == "function" and home not in _BY_RANKS
    return is_of_others or any(name.startswith("squeeze") for name in names)
