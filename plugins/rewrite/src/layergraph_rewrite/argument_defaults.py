"""The defaults of the arguments of torch's functions."""

from __future__ import annotations

import functools

from layergraph.ir import Value
from layergraph_rewrite.new_layers import signature_defaults


@functools.cache
def argument_defaults(name: str) -> dict[str, Value]:
    """Return the defaults of a function of torch by the names of its parameters.

    The functions of ``torch.nn.functional`` tell a tracer all their arguments, so that nodes have
    more of them than code. Functions written in C have no defaults here, nor have those of others:
    to look them up would import what a file names.

    Example:
        >>> from layergraph_rewrite.argument_defaults import argument_defaults
        >>> argument_defaults("torch.nn.functional.relu")
        {'inplace': False}
    """
    # Imported on first use, because it needs torch.
    from torch._jit_internal import boolean_dispatched

    from layergraph.functions.table import by_name

    known = by_name().get(name)
    function = None if known is None else known.target
    if not callable(function):
        return {}
    # F.max_pool2d is one function with indices and one without, which has the parameters.
    ways = boolean_dispatched.get(function) if hasattr(function, "__code__") else None
    return signature_defaults(function if ways is None else ways["if_false"])
