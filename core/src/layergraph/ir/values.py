"""The plain values of attributes and arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference in a node's arguments to the value of another node.

    Attributes:
        node: the name of a node in the same graph.

    Example:
        >>> from layergraph.ir.values import Ref, refs
        >>> refs([Ref("x"), (1, Ref("y"))])
        ['x', 'y']
    """

    node: str


@dataclass(frozen=True, slots=True)
class Body:
    """A reference in the arguments of a function node to an implementation that the function runs.

    A loop, for example, runs its body once in each turn. The function of a rebuilt model takes a
    callable in this place.

    Attributes:
        implementation: the name of an implementation of type ``body``: a graph without a module of
            its own. Its calls and reads are those of the module whose graph holds the node.

    Example:
        >>> from layergraph.ir.values import Body, bodies
        >>> bodies([Body("root/loop"), 3])
        ['root/loop']
    """

    implementation: str


@dataclass(frozen=True, slots=True)
class Symbol:
    """A dtype, layout or memory format of torch, by name.

    Attributes:
        name: the full name, such as ``"torch.float32"``.

    Example:
        >>> from layergraph.ir.values import Symbol
        >>> Symbol("torch.float32")
        Symbol(name='torch.float32')
    """

    name: str


@dataclass(frozen=True, slots=True)
class Record:
    """A named tuple, by the names of its class and fields.

    Attributes:
        type: the name of the class, such as ``"GoogLeNetOutputs"``.
        fields: the values by name, in order.

    Example:
        >>> from layergraph.ir.values import Record, Ref
        >>> Record("Outputs", {"logits": Ref("fc")}).fields["logits"]
        Ref(node='fc')
    """

    type: str
    fields: dict[str, Any]


# Nested lists, tuples, dicts, slices and records of None, bool, int, float, complex, str, bytes,
# Ellipsis, Symbol and (in arguments) Ref and Body. This is not a recursive alias, because type
# checkers would refuse to pass a dict[str, int] as a dict[str, Value].
Value: TypeAlias = Any

ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, type(...), Symbol, Ref, Body})

_KEYS = ATOMS - {Symbol, Ref, Body}


def is_key(value: object) -> bool:
    """Return whether a dict of plain values may have this key: an atom, or a tuple of atoms.

    Example:
        >>> from layergraph.ir.values import is_key
        >>> is_key(("a", 1)), is_key(["a"])
        (True, False)
    """
    if type(value) is tuple:
        return all(type(each) in _KEYS for each in value)
    return type(value) in _KEYS


MAX_INTEGER_BITS = 2048
"""The most bits of an integer. Python refuses to print longer ones if its limit is set low."""

MAX_NESTING = 100
"""The most levels of nested values: more than any call of a torch function needs."""

MAX_NUMBER_KEYS = 1000
"""The most keys of a dict that are not strings. The hash of a number is predictable, so that an
attacker can choose many numbers that collide, and a dict takes quadratic time for them."""

# A value of any other type is a leaf.
_CONTAINERS = frozenset({list, tuple, dict, slice, Record})


def parts(value: Value) -> tuple[Value, ...] | None:
    """Return the values directly inside a container, in order; None for a leaf.

    Example:
        >>> from layergraph.ir.values import parts
        >>> parts({"a": 1, "b": [2]}), parts(3)
        ((1, [2]), None)
    """
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
    """Return a container of the same kind with other values inside: see :func:`parts`.

    Args:
        like: the container, which gives the kind, and the keys or fields.
        inside: as many values as ``parts(like)`` has.

    Example:
        >>> from layergraph.ir.values import rebuilt
        >>> rebuilt({"a": 1, "b": 2}, [3, 4])
        {'a': 3, 'b': 4}
    """
    kind = type(like)
    if kind is dict:
        return dict(zip(like, inside, strict=True))
    if kind is slice:
        return slice(*inside)
    if kind is Record:
        return Record(like.type, dict(zip(like.fields, inside, strict=True)))
    return kind(inside)


def leaves(*values: Value) -> list[Value]:
    """Return all values inside that are not containers, depth first, in order.

    Example:
        >>> from layergraph.ir.values import leaves
        >>> leaves([1, (2, {"a": 3})])
        [1, 2, 3]
    """
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
    """Return the names of the nodes that the values refer to, in order, with repetitions.

    Example:
        >>> from layergraph.ir.values import Ref, refs
        >>> refs(Ref("x"), [Ref("y"), Ref("x")])
        ['x', 'y', 'x']
    """
    return [leaf.node for leaf in leaves(*values) if type(leaf) is Ref]


def bodies(*values: Value) -> list[str]:
    """Return the names of the implementations that the values refer to, in order.

    Example:
        >>> from layergraph.ir.values import Body, Ref, bodies
        >>> bodies(Body("root/true"), Ref("x"), Body("root/false"))
        ['root/true', 'root/false']
    """
    return [leaf.implementation for leaf in leaves(*values) if type(leaf) is Body]


def map_leaves(function: Callable[[Value], Any], value: Value) -> Any:
    """Return a copy of a nested value with each leaf replaced by ``function(leaf)``.

    The recursion is as deep as the value is nested; :func:`layergraph.ir.check` limits the depth.

    Example:
        >>> from layergraph.ir.values import map_leaves
        >>> map_leaves(lambda leaf: leaf + 1, [1, (2, {"a": 3})])
        [2, (3, {'a': 4})]
    """
    inside = parts(value)
    if inside is None:
        return function(value)
    if _CONTAINERS.isdisjoint(map(type, inside)):
        return rebuilt(value, list(map(function, inside)))
    return rebuilt(value, [map_leaves(function, item) for item in inside])


def copied(value: Value) -> Value:
    """Return a deep copy of a nested value. Leaves, which are immutable, are shared.

    Example:
        >>> from layergraph.ir.values import copied
        >>> value = [1, [2]]
        >>> copied(value) == value, copied(value)[1] is value[1]
        (True, False)
    """
    kind = type(value)
    if kind is tuple and _CONTAINERS.isdisjoint(map(type, value)):
        return value
    if kind is dict and _CONTAINERS.isdisjoint(map(type, value.values())):
        return dict(value)
    return map_leaves(_unchanged, value)


def _unchanged(leaf: Value) -> Value:
    return leaf
