"""Comparison of containers by the objects that they hold."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch

from layergraph.tensors.memory import lie_alike


def are_one(one: Any, other: Any) -> bool:
    """Return whether two values are one object, tensors with one memory, or contain such pairs."""
    if one is other or type(one) is not type(other):
        return one is other
    if isinstance(one, dict):
        return are_the_same(one, other) or (
            one.keys() == other.keys() and all(are_one(one[key], other[key]) for key in one)
        )
    if isinstance(one, list | tuple):
        # The class may override ``__len__`` and ``__iter__``.
        kind: Any = list if isinstance(one, list) else tuple
        mine, others = [*kind.__iter__(one)], [*kind.__iter__(other)]
        return len(mine) == len(others) and all(map(are_one, mine, others))
    return isinstance(one, torch.Tensor) and lie_alike(one, other)


def are_the_same(one: dict[Any, Any], other: dict[Any, Any]) -> bool:
    """Return whether two dicts hold the same objects in the same order; a quick check."""
    if not one or not other:
        return len(one) == len(other)
    return list(one) == list(other) and all(map(operator.is_, one.values(), other.values()))


def are_all_the_same(ones: Sequence[dict[Any, Any]], others: Sequence[dict[Any, Any]]) -> bool:
    """Return whether :func:`are_the_same` holds for each pair of dicts of two equal sequences.

    Keys have to be the very same objects, too. A dict that is new may differ here and be the same.
    """
    return (
        [*map(len, ones)] == [*map(len, others)]
        and all(map(operator.is_, chain.from_iterable(ones), chain.from_iterable(others)))
        and all(map(operator.is_, _values(ones), _values(others)))
    )


def _values(dicts: Sequence[dict[Any, Any]]) -> Iterator[Any]:
    return chain.from_iterable(map(_values_of, dicts))


_values_of = operator.methodcaller("values")


def fill(holder: dict[Any, Any], contents: dict[Any, Any]) -> None:
    """Replace the contents of a dict, in order."""
    dict.clear(holder)
    dict.update(holder, contents)
