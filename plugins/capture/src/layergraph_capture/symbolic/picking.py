"""Values whose sizes depend on numbers, such as the elements that a mask selects."""

from __future__ import annotations

from layergraph.ir.values import leaves
from layergraph.torch2ir.tracing.module_call import TracedValue

_PICKING = frozenset(
    "argwhere masked_select nonzero unique unique_consecutive unique_dim bincount tolist".split()
)

# Their results have sizes that follow from those of their first argument.
_RESHAPING = frozenset(
    "getitem flatten squeeze unsqueeze view reshape unbind t to long int clone detach".split()
)

_MASKS = frozenset(
    "eq ne lt le gt ge bool isnan isinf isfinite isin invert and_ or_ xor "
    "logical_not logical_and logical_or logical_xor".split()
)


def picks(leaf: object) -> bool:
    """Return whether a value has a size that depends on numbers."""
    pending = [leaf]
    while pending:
        leaf = pending.pop()
        call = leaf.call if isinstance(leaf, TracedValue) else None
        if call is None:
            continue
        name = call.target.rpartition(".")[2]
        if name in _PICKING or (name == "where" and len(call.args) == 1):
            return True
        if name == "getitem":
            indices = leaves(call.args[1:])
            if any(map(_is_mask, indices)):
                return True
            pending += indices
        if name in _RESHAPING:
            pending += leaves(call.args[:1])
    return False


def _is_mask(leaf: object) -> bool:
    call = leaf.call if isinstance(leaf, TracedValue) else None
    return call is not None and call.target.rpartition(".")[2] in _MASKS
