"""Loops over equal children: repeated calls become a ``for`` statement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from layergraph_source.steps import Step


@dataclass(slots=True)
class Loop:
    """Repeated steps.

    Attributes:
        container: the expression of the container.
        item: the wished name of the variable for an item of it.
        first_path: the expression of the first item.
        steps: the steps of one turn.
        end: the place after the last turn.
        carried: pairs of nodes: one from before the loop, and the variable that it begins with.
        updates: pairs of nodes: a carried variable, and its value for the next turn.
        renamed: for nodes of the last turn, the nodes of the first one that have the variable.
    """

    container: str
    item: str
    first_path: str
    steps: list[Step]
    end: int
    carried: list[tuple[str, str]] = field(default_factory=list)
    updates: list[tuple[str, str]] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)


def rolled(steps: Sequence[Step], at: int, read: Callable[[Step], str]) -> Loop | None:
    """Return the loop that begins at a place; None if there is none."""
    del steps, at, read
    return None
