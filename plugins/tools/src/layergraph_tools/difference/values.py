"""Whether plain values are the same, which is more than equal."""

from __future__ import annotations

from collections.abc import Hashable

from layergraph.ir import Record, Value
from layergraph.ir.values import ATOMS, parts

_BY_TEXT = frozenset({float, complex})


def same(one: Value, other: Value) -> bool:
    """Whether two values are equal and of the same types, all the way down.

    So 1, 1.0 and True are three values, 0.0 is not -0.0, and nan is nan. The order of a dict does
    not matter, as it does not to ``==``.
    """
    return type(one) is type(other) and frozen(one) == frozen(other)


def frozen(value: Value) -> Hashable:
    """What two values share if and only if they are the same."""
    kind = type(value)
    if kind is dict:
        return kind, frozenset(
            ((type(key), repr(key)), frozen(each)) for key, each in value.items()
        )
    inside = parts(value)
    if inside is None:
        return kind, value if kind in ATOMS and kind not in _BY_TEXT else repr(value)
    said = (value.type, tuple(value.fields)) if kind is Record else None
    return kind, said, tuple(map(frozen, inside))
