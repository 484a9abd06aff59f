"""The error for a model that Python source cannot express, with all problems."""

from __future__ import annotations

from collections.abc import Sequence

from layergraph.errors import BuildError, Place, Problem


class SourceError(BuildError):
    """A model that cannot be written as source.

    Args:
        problems: see below.

    Attributes:
        problems: the problems, each with place, message and remedy.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        what = "one thing" if count == 1 else f"{count} things"
        head = f"this model cannot be written as source: {what} in it cannot"
        super().__init__("\n  ".join([f"{head}:", *map(str, self.problems)]))

    def __reduce__(self) -> tuple[type[SourceError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class Problems:
    """The problems found so far."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Problem] = {}

    def add(self, place: Place, message: str, remedy: str) -> None:
        """Add a problem, unless one with the same place and message is there."""
        self._found.setdefault((str(place), message), Problem(place, message, remedy))

    def refuse(self) -> None:
        """Raise if there are problems.

        Raises:
            SourceError: there is a problem.
        """
        if self._found:
            raise SourceError(list(self._found.values()))
