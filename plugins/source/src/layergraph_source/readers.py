"""The readers of the values in a method."""

from __future__ import annotations

from collections.abc import Sequence

from layergraph_source.steps import Step


class Readers:
    """The steps of a method that read each value, by their places in the method.

    Args:
        steps: the steps of the method, in order.
    """

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self._steps = steps
        self._places = {id(step): place for place, step in enumerate(steps)}
        self._readers: dict[str, list[int]] = {}
        for place, step in enumerate(steps):
            for name in step.reads:
                self._readers.setdefault(name, []).append(place)

    def __contains__(self, name: str) -> bool:
        return name in self._readers

    def of(self, name: str) -> list[Step]:
        """Return the steps that read the value of a node."""
        return [self._steps[place] for place in self._readers.get(name, ())]

    def after(self, name: str, step: Step) -> list[Step]:
        """Return the steps after a step that read the value of a node."""
        last = self._places[id(step)]
        return [self._steps[each] for each in self._readers.get(name, ()) if each > last]

    def is_only(self, name: str, step: Step) -> bool:
        """Return whether a step reads the value of a node, and no other step does."""
        return self._readers.get(name) == [self._places[id(step)]]

    def put(self, others: Sequence[Step], steps: Sequence[Step]) -> None:
        """Give other steps the places of steps of the method."""
        for other, step in zip(others, steps, strict=True):
            self._places[id(other)] = self._places[id(step)]

    def take_over(self, name: str, of: str, turn: Sequence[Step]) -> None:
        """Count the readers of a value outside of one turn of a loop as readers of another value.

        Args:
            name: the node that gets the readers.
            of: the node that has them.
            turn: the steps of the turn.
        """
        own = {self._places[id(each)] for each in turn}
        outside = [each for each in self._readers.get(of, ()) if each not in own]
        if outside:
            self._readers.setdefault(name, []).extend(outside)
