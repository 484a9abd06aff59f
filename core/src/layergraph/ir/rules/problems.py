"""The problems that rules find, and their places."""

from __future__ import annotations

import itertools
import operator

from layergraph.errors import MAX_PROBLEMS, Place, Problem, brief
from layergraph.ir.graph import Graph, Implementation

# A place, or its parts. We construct places only for problems, because most nodes have none.
Where = Place | tuple[Place, str, object]


class TooManyProblemsError(Exception):
    """Stops the search after ``MAX_PROBLEMS`` problems."""


class Problems:
    """The problems found so far."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, where: Where, message: str, remedy: str) -> None:
        """Add a problem.

        Raises:
            TooManyProblemsError: this is the last problem to report.
        """
        place = where if isinstance(where, Place) else where[0].at(*where[1:])
        self.found.append(Problem(place, message, remedy))
        if len(self.found) >= MAX_PROBLEMS:
            raise TooManyProblemsError

    def expect(self, where: Where, what: str, value: object, kind: type | tuple[type, ...]) -> bool:
        """Return whether a field has an allowed type; if not, add a problem."""
        if type(value) is kind:
            return True
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if type(value) in kinds:
            return True
        wanted = " or ".join(each.__name__ for each in kinds)
        self.add(where, f"its {what} is {brief(value)}", f"{what} must be of type {wanted}")
        return False

    def wrong_fields(self, where: Where, entry: object, types: FieldTypes) -> list[str]:
        """Return the names of the fields of wrong types, and add a problem for each."""
        if types.fit(entry):
            return []
        return [
            name
            for name, kinds in types.kinds.items()
            if not self.expect(where, name, getattr(entry, name), kinds)
        ]


class FieldTypes:
    """The types that each field of an entry may have."""

    def __init__(self, **kinds: tuple[type, ...]) -> None:
        self.kinds = kinds
        self._values = operator.attrgetter(*kinds)
        self._allowed = frozenset(itertools.product(*kinds.values()))

    def fit(self, entry: object) -> bool:
        """Return whether all fields have allowed types, by one fast look-up."""
        return tuple(map(type, self._values(entry))) in self._allowed


def graphs_of(implementation: Implementation) -> list[tuple[Place, Graph]]:
    """Return the graphs of an implementation that are not empty, with their places."""
    named: list[tuple[Place, Graph]] = []
    if implementation.nodes or implementation.edges:
        named.append((place_of(implementation), implementation))
    if implementation.evaluation is not None:
        named.append((place_of(implementation).at("evaluation"), implementation.evaluation))
    return named


def place_of(implementation: Implementation) -> Place:
    """Return the place of an implementation."""
    return Place("implementation", implementation.name)
