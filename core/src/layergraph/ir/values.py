"""The plain values that attributes and arguments are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference, inside a node's arguments, to the value of another node.

    Attributes:
        node: the name of a node in the same implementation.
    """

    node: str


@dataclass(frozen=True, slots=True)
class Symbol:
    """A named constant of the framework, such as a dtype or a memory format.

    Attributes:
        name: its full name, ``"torch.float32"`` say.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Record:
    """A named tuple, by the name of its class and those of its fields.

    Attributes:
        type: the name of the class, ``"GoogLeNetOutputs"`` say.
        fields: name to value, in order.
    """

    type: str
    fields: dict[str, Any]


# Nested lists, tuples, dicts, slices and records of None, bool, int, float, complex, str, bytes,
# Ellipsis, Symbol and (in arguments) Ref. A recursive alias would say so, but type checkers then
# refuse every dict[str, int] that is passed where a dict[str, Value] is expected.
Value: TypeAlias = Any

ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, type(...), Symbol, Ref})

_KEYS = ATOMS - {Symbol, Ref}


def is_key(value: object) -> bool:
    """Return whether a dict of plain values may have such a key: an atom, or a tuple of some."""
    if type(value) is tuple:
        return all(type(each) in _KEYS for each in value)
    return type(value) in _KEYS


MAX_INTEGER_BITS = 2048
"""The most bits of an integer. Python prints no longer ones where its own limit is set low."""

MAX_NESTING = 100
"""How deep values may be nested: more than any call of a torch function needs."""

MAX_NUMBER_KEYS = 1000
"""The most keys of a dict that are no strings. Python's hash of a number can be foreseen, so that
many can be chosen to collide, and each takes as long as all before it."""

# What is of another type is a leaf. Most values are leaves, so this is looked at first.
_CONTAINERS = frozenset({list, tuple, dict, slice, Record})


def parts(value: Value) -> tuple[Value, ...] | None:
    """The values directly inside a container, in order; None for what is not a container."""
    kind = type(value)
    if kind not in _CONTAINERS:
        return None
    if kind is list or kind is tuple:
        return tuple(value)
    if kind is dict:
        return tuple(value.values())
    if kind is slice:
        return (value.start, value.stop, value.step)
    return tuple(value.fields.values()) if type(value.fields) is dict else None


def rebuilt(like: Value, inside: Sequence[Value]) -> Value:
    """The container again, of the same kind, with other values inside: see :func:`parts`."""
    kind = type(like)
    if kind is dict:
        return dict(zip(like, inside, strict=True))
    if kind is slice:
        return slice(*inside)
    if kind is Record:
        return Record(like.type, dict(zip(like.fields, inside, strict=True)))
    return kind(inside)


def leaves(*values: Value) -> list[Value]:
    """Every value that is not a container, depth first, in order."""
    if _CONTAINERS.isdisjoint(map(type, values)):
        return list(values)
    found = []
    stack = list(reversed(values))
    while stack:
        value = stack.pop()
        inside = parts(value) if type(value) in _CONTAINERS else None
        if inside is None:
            found.append(value)
        else:
            stack.extend(reversed(inside))
    return found


def refs(*values: Value) -> list[str]:
    """The names of the nodes that the values refer to, in order, repetitions included."""
    return [leaf.node for leaf in leaves(*values) if type(leaf) is Ref]


def map_leaves(function: Callable[[Value], Any], value: Value) -> Any:
    """The same nested value with every leaf replaced by what ``function`` gives for it.

    It recurses as deep as the value is nested; :func:`layergraph.ir.check` bounds that.
    """
    inside = parts(value)
    if inside is None:
        return function(value)
    if _CONTAINERS.isdisjoint(map(type, inside)):
        return rebuilt(value, list(map(function, inside)))
    return rebuilt(value, [map_leaves(function, item) for item in inside])


def copied(value: Value) -> Value:
    """The same nested value; whatever in it can be changed is its own."""
    kind = type(value)
    if kind is tuple and _CONTAINERS.isdisjoint(map(type, value)):
        return value
    if kind is dict and _CONTAINERS.isdisjoint(map(type, value.values())):
        return dict(value)
    return map_leaves(_unchanged, value)


def _unchanged(leaf: Value) -> Value:
    return leaf
