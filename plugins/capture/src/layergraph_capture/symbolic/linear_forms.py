"""Linear forms of numbers: sums of sizes, each with a factor.

Code computes a length in several ways. ``length + past - length`` with a ``past`` of 0 is 0 for all
inputs, so a comparison of it with 0 has one answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Any

from layergraph.torch2ir.tracing.module_call import DeferredCall
from layergraph_capture.symbolic.symbolic_int import SymbolicNumber

# The most terms of a sum; sums of sums of one number have very many.
_MOST_TERMS = 100


def may_differ(left: Any, right: Any) -> bool:
    """Return whether two numbers that are equal in the example may differ for other inputs."""
    form: Counter[Hashable] = Counter()
    pending = [(left, 1), (right, -1)]
    for _ in range(_MOST_TERMS):
        if not pending:
            return any(form.values())
        number, factor = pending.pop()
        if not isinstance(number, SymbolicNumber):
            continue  # the constants cancel, because the numbers are equal
        name, *args = number.origin
        if name == "operator.neg":
            pending.append((args[0], -factor))
        elif name in ("operator.add", "operator.sub"):
            first, second = args
            pending += (first, factor), (second, factor if name == "operator.add" else -factor)
        else:
            # Each read of one size of a tensor is a deferred call of its own.
            form[tuple(args) if isinstance(name, DeferredCall) else id(number)] += factor
    return True
