"""Work on the graph: edit, select, extract and rewrite the IR of a model; passes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `Ir.flatten` works without torch
    from layergraph_rewrite.calls import Call, Site
    from layergraph_rewrite.edit import Edit
    from layergraph_rewrite.errors import EditError, Refused
    from layergraph_rewrite.holders import bound_layers
    from layergraph_rewrite.match import Match
    from layergraph_rewrite.report import Report
    from layergraph_rewrite.rules import Rule, apply_rules, find_matches, rewrite, rule
    from layergraph_rewrite.select import Selection
    from layergraph_rewrite.terms import VALUE, anything, function, layer, one_of

__all__ = [
    "VALUE",
    "Call",
    "Edit",
    "EditError",
    "Match",
    "Refused",
    "Report",
    "Rule",
    "Selection",
    "Site",
    "anything",
    "apply_rules",
    "bound_layers",
    "find_matches",
    "function",
    "layer",
    "one_of",
    "rewrite",
    "rule",
]

_HOMES = {
    "VALUE": "terms",
    "Call": "calls",
    "Edit": "edit",
    "EditError": "errors",
    "Match": "match",
    "Refused": "errors",
    "Report": "report",
    "Rule": "rules",
    "Selection": "select",
    "Site": "calls",
    "anything": "terms",
    "apply_rules": "rules",
    "bound_layers": "holders",
    "find_matches": "rules",
    "function": "terms",
    "layer": "terms",
    "one_of": "terms",
    "rewrite": "rules",
    "rule": "rules",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
