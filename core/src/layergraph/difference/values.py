"""Whether plain values are the same, which is more than equal."""

from __future__ import annotations

from layergraph.ir import Record, Value
from layergraph.ir.values import ATOMS, parts

_BY_TEXT = frozenset({float, complex})


def same(one: Value, other: Value) -> bool:
    """Whether two values are equal and of the same types, all the way down.

    So 1, 1.0 and True are three values, 0.0 is not -0.0, and nan is nan. The order of a dict does
    not matter, as it does not to ``==``.
    """
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is dict:
        return _same_dicts(one, other)
    inside = parts(one)
    if inside is None:
        if kind in _BY_TEXT or kind not in ATOMS:
            return repr(one) == repr(other)
        return bool(one == other)
    if kind is Record and (one.type != other.type or list(one.fields) != list(other.fields)):
        return False
    there = parts(other) or ()
    return len(inside) == len(there) and all(map(same, inside, there))


def _same_dicts(one: dict[Value, Value], other: dict[Value, Value]) -> bool:
    there = {(type(key), repr(key)): value for key, value in other.items()}
    return len(one) == len(other) and all(
        (type(key), repr(key)) in there and same(value, there[type(key), repr(key)])
        for key, value in one.items()
    )
