"""Patterns: terms, written as a function of the values that flow into a match."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from layergraph.errors import ArgumentError, first_line
from layergraph_rewrite.terms import Applied, Layer, OneOf, Value


class Pattern:
    """A pattern, ready to match.

    Args:
        code: a function that returns a call of a layer or function. Its parameters are the values
            that flow in: wildcards, under whose names a match has the values.

    Attributes:
        root: the last call.
        depth: the most calls from the last call to a first one.

    Raises:
        ArgumentError: the function does not return a call.

    Example:
        >>> from layergraph_rewrite import layer
        >>> from layergraph_rewrite.pattern import Pattern
        >>> Pattern(lambda x: layer("relu")(layer("linear", name="linear")(x))).depth
        2
    """

    def __init__(self, code: Callable[..., Any]) -> None:
        try:
            names = list(inspect.signature(code).parameters)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"{code!r:.60} is no function to read a pattern from") from error
        try:
            root = code(*map(Value, names))
        except ArgumentError:
            raise
        except Exception as error:
            raise ArgumentError(
                f"the pattern {_name(code)!r} raised {type(error).__name__}: {first_line(error)}"
            ) from error
        if not isinstance(root, Applied | OneOf):
            raise ArgumentError(
                f"the pattern {_name(code)!r} returns {root!r:.60}; let it return a call of a "
                'layer or function, as in layer("relu")(x)'
            )
        self.root = root
        self.depth = _depth(root)

    def may_start_at(self) -> Callable[[str, str], bool]:
        """Return whether the last call may be of a layer type or function, given kind and name.

        The kind is ``"layer"`` or ``"function"``.
        """
        operations = [each.operation for each in _roots(self.root)]
        known: dict[tuple[str, str], bool] = {}

        def may(kind: str, name: str) -> bool:
            pair = kind, name
            if pair not in known:
                known[pair] = any(
                    (isinstance(each, Layer) == (kind == "layer")) and is_named(each, name)
                    for each in operations
                )
            return known[pair]

        return may


def is_named(operation: Any, name: str) -> bool:
    """Return whether a layer or function of a pattern is for a type or name."""
    wanted = operation.types if isinstance(operation, Layer) else operation.names
    return any(each == name or ("*" in each and fnmatchcase(name, each)) for each in wanted)


def _name(code: Callable[..., Any]) -> str:
    return getattr(code, "__name__", type(code).__name__)


def _roots(term: Any) -> Iterator[Applied]:
    if isinstance(term, OneOf):
        for each in term.terms:
            yield from _roots(each)
    elif isinstance(term, Applied):
        yield term


def _depth(term: Any) -> int:
    inner: list[Any] = []
    if isinstance(term, OneOf):
        return max(map(_depth, term.terms), default=0)
    if isinstance(term, Applied):
        inner = [*term.args, *term.kwargs.values()]
    elif isinstance(term, list | tuple):
        inner = list(term)
    elif isinstance(term, dict):
        inner = list(term.values())
    return isinstance(term, Applied) + max(map(_depth, inner), default=0)
