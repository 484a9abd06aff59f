"""Work on the graph: edit, select, extract and rewrite the IR of a model; passes."""

from layergraph_rewrite.calls import Call, Site
from layergraph_rewrite.edit import Edit
from layergraph_rewrite.errors import EditError, Refused
from layergraph_rewrite.holders import bound_layers
from layergraph_rewrite.match import Match
from layergraph_rewrite.report import Report
from layergraph_rewrite.rewrite import Rule, apply_rules, find_matches, rewrite, rule
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
