"""Rewrite a model with widths to one that computes in fixed point."""

from __future__ import annotations

from acme_fixed_point.widths import FRAC, TOTAL
from layergraph import Ir


def to_fixed_point(ir: Ir) -> Ir:
    """Return a copy of an IR in which linear layers with widths are fixed-point layers.

    The model of the copy has the same weights, under the same keys.
    """
    changed = Ir.from_dict(ir.to_dict())
    for each in changed.values():
        if each.type == "linear" and TOTAL in each.data:
            widths = {"total_bits": each.data[TOTAL], "frac_bits": each.data[FRAC]}
            each.type, each.data = "fixedpointlinear", {**each.attributes, **widths}
    return changed
