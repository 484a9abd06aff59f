"""Patterns: terms, written as a function of the values that flow into a match."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from layergraph.errors import ArgumentError, first_line
from layergraph.ir.values import ATOMS, parts
from layergraph_rewrite.terms import Applied, Existing, Function, Layer, OneOf, Value

_CHOICES_OF_USES = ("inside", "any")


class Pattern:
    """A pattern, ready to match.

    Args:
        code: a function that returns a call of a layer or function. Its parameters without defaults
            are wildcards; a match has their values by name.

    Attributes:
        root: the last call.
        depth: the most calls from the last call to a first one.

    Raises:
        ArgumentError: the function does not return a call, or a part of it can match nothing.

    Example:
        >>> from layergraph_rewrite import layer
        >>> from layergraph_rewrite.pattern import Pattern
        >>> Pattern(lambda x: layer("relu")(layer("linear", name="linear")(x))).depth
        2
    """

    def __init__(self, code: Callable[..., Any]) -> None:
        self._name = getattr(code, "__name__", type(code).__name__)
        try:
            parameters = inspect.signature(code).parameters.values()
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"{code!r:.60} is no function to read a pattern from") from error
        try:
            root = _called(code, parameters)
        except ArgumentError:
            raise
        except Exception as error:
            raise ArgumentError(
                f"the pattern {self._name!r} raised {type(error).__name__}: {first_line(error)}"
            ) from error
        for each in _roots(root):
            if not isinstance(each, Applied):
                raise ArgumentError(
                    f"the pattern {self._name!r} returns {each!r:.60}; let it return a call of a "
                    'layer or function, as in layer("relu")(x)'
                )
        self.root = root
        self._depths: dict[int, int] = {}
        self._names: dict[int, dict[str, frozenset[int]]] = {}
        self.depth = self._walk(root)

    def may_start_at(self) -> Callable[[str, str], bool]:
        """Return a test whether the last call may be of a layer type or function, by kind and name.

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

    def _walk(self, term: Any) -> int:
        """Check a term, and return its depth. A shared term is checked once."""
        known = self._depths.get(id(term))
        if known is not None:
            return known
        inner = self._inner(term)
        depth = isinstance(term, Applied) + max(map(self._walk, inner), default=0)
        self._depths[id(term)] = depth
        self._names[id(term)] = self._named(term, inner)
        return depth

    def _inner(self, term: Any) -> tuple[Any, ...]:
        if isinstance(term, OneOf):
            if not term.terms:
                raise ArgumentError(f"one_of() of the pattern {self._name!r} has no alternatives")
            return term.terms
        if isinstance(term, Applied):
            if isinstance(term.operation, Existing):
                raise ArgumentError(
                    f"the pattern {self._name!r} calls what a match gave; name its type instead"
                )
            _check_operation(term.operation)
            return (*term.args, *term.kwargs.values())
        if isinstance(term, Layer | Function):
            raise ArgumentError(
                f"a layer or function of the pattern {self._name!r} is not called; write it as in "
                'layer("relu")(x)'
            )
        inner = parts(term)
        if inner is None and not isinstance(term, Value) and type(term) not in ATOMS:
            raise ArgumentError(
                f"{term!r:.60} in the pattern {self._name!r} is no value of an IR; a dtype is "
                'Symbol("torch.float32") there'
            )
        return inner or ()

    def _named(self, term: Any, inner: tuple[Any, ...]) -> dict[str, frozenset[int]]:
        """Return the names in a term, each with the ids of its parts: alternatives share names."""
        names: dict[str, frozenset[int]] = {}
        own = term.operation.name if isinstance(term, Applied) else getattr(term, "name", None)
        if own and isinstance(term, Applied | Value):
            names[own] = frozenset([id(term)])
        for each in inner:
            for name, ids in self._names[id(each)].items():
                if isinstance(term, OneOf):
                    names[name] = names.get(name, frozenset()) | ids
                elif names.setdefault(name, ids) != ids:
                    raise ArgumentError(
                        f"two parts of the pattern {self._name!r} have the name {name!r}; give "
                        "each a name of its own"
                    )
        return names


def _called(code: Callable[..., Any], parameters: Any) -> Any:
    args, kwargs = [], {}
    for each in parameters:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            raise ArgumentError(
                f"the pattern has a parameter {each}; name each value that flows in"
            )
        if each.default is not each.empty:
            continue
        if each.kind is each.KEYWORD_ONLY:
            kwargs[each.name] = Value(each.name)
        else:
            args.append(Value(each.name))
    return code(*args, **kwargs)


def _check_operation(operation: Layer | Function) -> None:
    uses = operation.uses
    if uses not in _CHOICES_OF_USES and (type(uses) is not int or uses < 0):
        raise ArgumentError(f'uses={uses!r:.60} is neither "inside", "any" nor a number of nodes')
    if operation.where is not None and not callable(operation.where):
        raise ArgumentError(f"where={operation.where!r:.60} is no function of a Call")


def is_named(operation: Any, name: str) -> bool:
    """Return whether a layer or function of a pattern is for a type or name."""
    wanted = operation.types if isinstance(operation, Layer) else operation.names
    return name in wanted or any("*" in each and fnmatchcase(name, each) for each in wanted)


def _roots(term: Any) -> Iterator[Any]:
    """Yield the alternatives for the last call."""
    if isinstance(term, OneOf):
        for each in term.terms:
            yield from _roots(each)
    else:
        yield term
