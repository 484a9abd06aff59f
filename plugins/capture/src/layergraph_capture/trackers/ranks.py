"""Detection of ranks that depend on sizes: ``squeeze`` drops dimensions of size 1."""

from __future__ import annotations

import functools

from layergraph.ir import Value
from layergraph.torch2ir.tracing.module_call import TracedValue

# The rank of a result of these packages' functions follows from the ranks of the arguments.
_BY_RANKS = frozenset("builtins layergraph math operator torch".split())


class Ranks:
    """Finds for each value whether its rank depends on sizes."""

    def __init__(self) -> None:
        # Each entry keeps its value alive, so that ids stay unique.
        self._known: dict[int, tuple[TracedValue, bool]] = {}

    def follows_from_sizes(self, value: Value) -> bool:
        """Return whether a value may have another rank for other sizes of the inputs."""
        if not isinstance(value, TracedValue):
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


@functools.lru_cache(maxsize=4096)
def _is_open(kind: str, target: str) -> bool:
    """Return whether the rank of a call's result may differ for other sizes."""
    home, *names = target.split(".")
    is_of_others = kind == "function" and home not in _BY_RANKS
    return is_of_others or any(name.startswith("squeeze") for name in names)
