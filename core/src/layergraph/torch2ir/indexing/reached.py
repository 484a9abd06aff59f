"""The objects that a model's code reaches, and the listeners that are told about them."""

from __future__ import annotations

import types
from collections.abc import Collection
from typing import Any, NamedTuple, TypeAlias

Label: TypeAlias = "tuple[Label | None, object]"
"""The place of an object: the place of its owner, and its name there."""

Place: TypeAlias = tuple[Any, Any]
"""A dict, a class or another object, and the name of an entry or attribute."""

Code: TypeAlias = types.CodeType | None
"""The code by which something is reached; None if the model itself holds it."""


class Reached(NamedTuple):
    """A reached object that keeps state.

    Attributes:
        state: the object.
        label: its place.
        code: the code that reaches it.
        path: of an attribute of the model, the path of the module.
        place: what holds it; None if unknown.
    """

    state: Any
    label: Label
    code: Code
    path: str = ""
    place: Place | None = None


class Listener:
    """A listener for objects that code reaches; it ignores what it does not override."""

    def reached(self, reached: Reached) -> None:
        """Receive an object that keeps state, before code can change it."""

    def entered(self, members: dict[str, Any]) -> None:
        """Receive globals, before code with these globals runs."""

    def named(self, members: dict[str, Any], names: Collection[str]) -> None:
        """Receive the names that code with these globals is the first to mention."""

    def found_callable(self, place: Place, function: Any) -> None:
        """Receive a function that a run patches, because torch's modes miss its calls."""


class ReachedState:
    """The reached objects that keep state, and the listeners.

    Attributes:
        found: the objects that keep state.
        scopes: by ``id``, the globals of the code that has run, and the names that it mentions.
        callables: the functions that a run patches, each with its place.
        listeners: the listeners.
    """

    def __init__(self) -> None:
        self.found: list[Reached] = []
        self.scopes: dict[int, tuple[dict[str, Any], set[str]]] = {}
        self.callables: list[tuple[Place, Any]] = []
        self.listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Pass all reached objects, including later ones, to a listener."""
        for reached in self.found:
            listener.reached(reached)
        for members, names in self.scopes.values():
            listener.entered(members)
            listener.named(members, names)
        for place, function in self.callables:
            listener.found_callable(place, function)
        self.listeners.append(listener)

    def keep(self, *reached_by: Any) -> None:
        """Add an object that keeps state; see :class:`Reached` for the arguments."""
        reached = Reached(*reached_by)
        self.found.append(reached)
        for listener in self.listeners:
            listener.reached(reached)

    def keep_scope(self, members: dict[str, Any], names: frozenset[str]) -> None:
        """Add the globals of code that is about to run, and the names that it mentions."""
        if id(members) not in self.scopes:
            self.scopes[id(members)] = members, set()
            for listener in self.listeners:
                listener.entered(members)
        known = self.scopes[id(members)][1]
        new = names - known
        if new:
            known |= new
            for listener in self.listeners:
                listener.named(members, new)

    def keep_callable(self, place: Place, function: Any) -> None:
        """Add a function that a run patches."""
        holder, name = place
        if any(each[0] is holder and each[1] == name for each, _ in self.callables):
            return
        self.callables.append((place, function))
        for listener in self.listeners:
            listener.found_callable(place, function)
