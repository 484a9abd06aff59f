"""An observer that describes values: tensors by shape and dtype, branches by both ways."""

from __future__ import annotations

from typing import Any

from layergraph_shapes.alternatives import Branch
from layergraph_shapes.described import Either, described
from layergraph_shapes.observer import Observer
from layergraph_shapes.sizes import Sizes


class Describing(Observer):
    """Describes values.

    Args:
        sizes: the symbolic sizes.
    """

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    def describe(self, value: Any) -> Any:
        """Return the description of a value."""
        if type(value) is Branch:
            ways = self.describe(value.if_true), self.describe(value.if_false)
            return ways[0] if ways[0] == ways[1] else Either(value.decision.name, *ways)
        return described(value, self._leaf)

    def _leaf(self, leaf: Any) -> Any:
        return self.describe(leaf) if type(leaf) is Branch else self._sizes.described(leaf)
