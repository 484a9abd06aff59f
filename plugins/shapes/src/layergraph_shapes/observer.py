"""The interface of an observer of a walk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

from layergraph.ir import Implementation, Node
from layergraph_shapes.alternatives import Answers

Path: TypeAlias = tuple[str, ...]
"""The names of the nodes that make a call, from the root on."""


class Observer:
    """The base of observers, which does nothing.

    Attributes:
        takes_repeats: whether the walk passes a call that repeats an earlier one to :meth:`repeat`
            and does not run it: a composite of the same form, on inputs of the same description.
    """

    takes_repeats: ClassVar[bool] = False

    def repeat(self, _first: Path, _path: Path, _node: Node, /) -> None:
        """Receive a node whose value has the description of an earlier one.

        Args:
            _first: the path of the earlier node.
            _path: the path of the node.
            _node: the node.
        """

    def value(self, _path: Path, _node: Node, _value: Any, _answers: Answers, /) -> None:
        """Receive the value of a node."""

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
        """Receive the start of a call of a composite, with its arguments and its mode."""

    def computed(self, _value: Any, _released: Sequence[Any], /) -> None:
        """Receive the value of a node, and the values that no later node reads."""

    def failed(self, _kept: Sequence[Any], /) -> None:
        """Receive the end of a failing call, with the values that were live until here."""

    def leave(self, _implementation: Implementation, _result: Any, _kept: Sequence[Any], /) -> None:
        """Receive the end of a call, with the values that were live until here."""
