"""The decisions that come up in a walk, and the answers that its caller gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layergraph.errors import ArgumentError
from layergraph_shapes.alternatives import Answers, Decision, UndecidedError
from layergraph_shapes.observer import Path


class Decisions:
    """The decisions of one walk.

    Args:
        given: the answers of the caller, by the names of the decisions.

    Attributes:
        open: the decisions without a given answer, by name.
    """

    def __init__(self, given: Mapping[str, bool]) -> None:
        self.open: dict[str, Decision] = {}
        self._given = given
        self._asked: set[str] = set()

    @property
    def count(self) -> tuple[int, int]:
        """The numbers of open decisions, and of all decisions so far."""
        return len(self.open), len(self._asked)

    def answer(self, path: Path, args: tuple[Any, ...], answers: Answers) -> bool:
        """Return the answer to a decision.

        Args:
            path: the path of its node.
            args: the arguments of its node; a text among them is the line of the model's code.
            answers: the answers on this way of the walk.

        Raises:
            UndecidedError: neither the caller nor the way of the walk has an answer.
        """
        name = "/".join(path)
        self._asked.add(name)
        if name in self._given:
            return self._given[name]
        where = next((each for each in args[1:] if isinstance(each, str)), "")
        decision = self.open.setdefault(name, Decision(name, where))
        if decision not in answers:
            raise UndecidedError(decision)
        return answers[decision]

    def check_given(self) -> None:
        """Check that the model makes each decision that the caller answers.

        Raises:
            ArgumentError: the model does not make such a decision.
        """
        for name in self._given.keys() - self._asked:
            known = ", ".join(sorted(self._asked)) or "none"
            raise ArgumentError(f"there is no decision {name!r}; the decisions are: {known}")
