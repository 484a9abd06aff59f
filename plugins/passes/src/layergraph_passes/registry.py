"""The list of the passes."""

from __future__ import annotations

from layergraph import Pass
from layergraph_passes.annotate import annotate
from layergraph_passes.canonical import canonicalize
from layergraph_passes.composites import fuse_chain, split
from layergraph_passes.dead_code import dead_code
from layergraph_passes.duplicates import common_subexpressions, deduplicate
from layergraph_passes.fold_batchnorm import fold_batchnorm
from layergraph_passes.functional import functional_to_layers, layers_to_functional
from layergraph_passes.identities import remove_dropout, remove_identity
from layergraph_passes.open_leaves import open_leaves
from layergraph_passes.replacing import replace_type

_NAMES = {"replace-layers": replace_type}
_FUNCTIONS = (
    fold_batchnorm,
    remove_dropout,
    remove_identity,
    dead_code,
    common_subexpressions,
    canonicalize,
    functional_to_layers,
    layers_to_functional,
    open_leaves,
    fuse_chain,
    split,
    deduplicate,
    annotate,
)


def passes() -> list[Pass]:
    """Return a row for each pass."""
    named = {each.__name__.replace("_", "-"): each for each in _FUNCTIONS} | _NAMES
    return [Pass(name, function) for name, function in named.items()]
