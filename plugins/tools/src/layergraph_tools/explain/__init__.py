"""The plugins that answer for a module, a class or a type, in order, and what each says."""

from layergraph_tools.explain.api import explain
from layergraph_tools.explain.chain import Asked, Chain, Explanation

__all__ = ["Asked", "Chain", "Explanation", "explain"]
