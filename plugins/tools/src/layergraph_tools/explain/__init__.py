"""The handlers of a module, a class or a type, in order, with the answer of each."""

from layergraph_tools.explain.api import explain
from layergraph_tools.explain.chain import Asked, Chain, Explanation

__all__ = ["Asked", "Chain", "Explanation", "explain"]
