"""Work on the graph: edit, select, extract and rewrite the IR of a model; passes."""

from layergraph_rewrite.calls import Call, Site
from layergraph_rewrite.edit import Edit
from layergraph_rewrite.errors import EditError
from layergraph_rewrite.terms import VALUE, anything, function, layer, one_of

__all__ = ["VALUE", "Call", "Edit", "EditError", "Site", "anything", "function", "layer", "one_of"]
