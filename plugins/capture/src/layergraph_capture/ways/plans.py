"""Plans: answers to the decisions of a run that do not come from its numbers."""

from __future__ import annotations

from collections.abc import Callable

from layergraph.torch2ir.tracing.lines import Place

Plan = Callable[[Place, int, bool], bool]
"""A function that answers a decision.

It takes the place of the decision, the number of decisions that the run has made at this place
before, and the answer of the numbers.
"""
