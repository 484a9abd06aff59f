"""What capturing gives: a sequence of calls, each in the module call in which it happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from layergraph.ir import Value as Plain

Kind = Literal["function", "module", "state", "same", "mode"]


@dataclass(slots=True, eq=False)
class Value:
    """Something that the model computes, or is given.

    Attributes:
        position: when it came about, counted over the whole capture.
        scope: the module call in which it came about.
        wish: what a node of it would be called.
    """

    position: int
    scope: Scope
    wish: str


@dataclass(frozen=True, slots=True)
class StateRead:
    """A tensor of the model: a parameter, a buffer or a constant.

    Attributes:
        key: its key in the state dict, or where a state dict would have it.
    """

    key: str


@dataclass(frozen=True, slots=True)
class ModeRead:
    """Whether a module is training.

    Attributes:
        path: the path of the module.
    """

    path: str


@dataclass(slots=True, eq=False)
class Call:
    """One call of a function or of a leaf.

    Attributes:
        kind: ``function``; ``module``; ``state``: a tensor of the model that is passed on;
            ``same``: its argument, given back by a module call that it was given to; ``mode``: a
            module's mode that Python code reads, with the value as its argument.
        target: the name of the function, the path of the module, the key of the tensor.
        args: lowered: plain values in which :class:`Value`, :class:`StateRead` and
            :class:`ModeRead` may stand.
        kwargs: likewise.
        value: what it gives.
        where: the line of the model's code, for kind ``mode``.
    """

    kind: Kind
    target: str
    args: tuple[Plain, ...]
    kwargs: dict[str, Plain]
    value: Value
    where: str = ""


@dataclass(slots=True, eq=False)
class Scope:
    """One call of a module that is traced through.

    Attributes:
        path: the path of the module.
        parent: the module call around it; None for that of the model.
        start: the first position inside.
        end: the first position after.
        depth: how many module calls are around it.
        parameters: the name under which each argument was given, argument by argument.
        args: lowered.
        kwargs: lowered.
        result: lowered.
        items: the calls and module calls inside, in order.
    """

    path: str
    parent: Scope | None
    start: int
    end: int = -1
    depth: int = 0
    parameters: tuple[str, ...] = ()
    args: tuple[Plain, ...] = ()
    kwargs: dict[str, Plain] = field(default_factory=dict)
    result: Plain = None
    items: list[Call | Scope] = field(default_factory=list)

    def contains(self, value: Value) -> bool:
        """Whether the value came about inside."""
        return self.start <= value.position < self.end


class Recorder:
    """Writes the sequence down."""

    def __init__(self) -> None:
        self._position = 0
        self.root = self.scope = Scope("", None, 0)

    def value(self, wish: str) -> Value:
        """A new value, here and now."""
        value = Value(self._position, self.scope, wish)
        self._position += 1
        return value

    def call(
        self,
        kind: Kind,
        target: str,
        args: tuple[Plain, ...],
        kwargs: dict[str, Plain],
        where: str = "",
    ) -> Value:
        """Add a call to the current module call."""
        wish = target.rpartition(".")[2]
        value = self.value(wish.strip("_") if wish.startswith("__") else wish)
        self.scope.items.append(Call(kind, target, args, kwargs, value, where))
        return value

    def enter(self, path: str) -> Scope:
        """Begin a module call."""
        scope = Scope(path, self.scope, self._position, depth=self.scope.depth + 1)
        self.scope.items.append(scope)
        self.scope = scope
        return scope

    def is_inside(self, value: Value) -> bool:
        """Whether a value came about in the current module call, as far as it has got."""
        return value.position >= self.scope.start

    def leave(self, result: Plain) -> None:
        """End the current module call."""
        self.scope.result = result
        self.scope.end = self._position
        if self.scope.parent is not None:
            self.scope = self.scope.parent


def scopes(root: Scope) -> Iterator[Scope]:
    """Every module call, those inside before those around them."""
    stack = [(root, iter(root.items))]
    while stack:
        scope, items = stack[-1]
        for item in items:
            if isinstance(item, Scope):
                stack.append((item, iter(item.items)))
                break
        else:
            stack.pop()
            yield scope
