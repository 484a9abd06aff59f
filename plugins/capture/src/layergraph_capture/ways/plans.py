"""Plans: answers to the decisions of a run that do not come from its numbers."""

from __future__ import annotations

from collections.abc import Callable

Plan = Callable[[str, int, bool], bool]
"""A function that answers a decision.

It takes the line of the decision, the number of decisions that the run has made at this line
before, and the answer of the numbers.
"""
