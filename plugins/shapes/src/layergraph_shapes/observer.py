"""The interface of an observer of a walk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

from layergraph.ir import Implementation, Node
from layergraph_shapes.alternatives import Answers

Path: TypeAlias = tuple[str, ...]
"""The names of the nodes that make a call, from the root on."""


class Observer:
    """Sees what a walk computes. This one looks away.

    Attributes:
        takes_repeats: whether :meth:`repeat` stands for a call that is like one before: of a
            composite of the same form, on inputs that are described alike. Otherwise it is made.
    """

    takes_repeats: ClassVar[bool] = False

    def repeat(self, _first: Path, _path: Path, _node: Node, /) -> None:
        """See a node whose value is described like one that was seen before.

        Args:
            _first: the path of that one.
            _path: the path of the node.
            _node: the node.
        """

    def value(self, _path: Path, _node: Node, _value: Any, _answers: Answers, /) -> None:
        """See the value of a node."""

    def run(
        self,
        _owner: Implementation,
        _called: Implementation | str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        _answers: Answers,
        /,
    ) -> Any:
        """Run a leaf, or a function in the graph of its owner, and return its result."""
        return function(*args, **kwargs)

    def enter(
        self, _implementation: Implementation, _values: Sequence[Any], _training: bool, /
    ) -> None:
        """See a call of a composite, with the values that it takes, and its mode."""

    def computed(self, _value: Any, _released: Sequence[Any], /) -> None:
        """See the value of a node, and those that no later node reads."""

    def failed(self, _kept: Sequence[Any], /) -> None:
        """See the end of a call that fails, with the values that were kept up to here."""

    def leave(self, _implementation: Implementation, _result: Any, _kept: Sequence[Any], /) -> None:
        """See the end of a call, with the values that were kept up to here."""
