"""Strict equality of plain values: by value and by type."""

from __future__ import annotations

from collections.abc import Hashable

from layergraph.ir import Record, Value
from layergraph.ir.values import ATOMS, parts

_BY_TEXT = frozenset({float, complex})


def same(one: Value, other: Value) -> bool:
    """Return whether two nested values are equal and have the same types.

    1, 1.0 and True are three values, 0.0 is not -0.0, and nan is nan. The order of a dict does not
    matter, as for ``==``.
    """
    return type(one) is type(other) and frozen(one) == frozen(other)


def frozen(value: Value) -> Hashable:
    """Return a key that two values share if and only if :func:`same` holds."""
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
