"""Example calls with other numbers of items in the lists among the arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from layergraph.capturing import Example
from layergraph.tensors.memory import copy_of
from layergraph_capture.arguments import tensors_in
from layergraph_capture.loops.lengths import with_arguments


@dataclass(frozen=True, slots=True)
class ItemCount:
    """A number of items that one or several lists or tuples among the arguments have.

    Attributes:
        size: the number.
        inputs: the indices of these lists among all lists and tuples in the example.
        step: its growth per turn.
    """

    size: int
    inputs: tuple[int, ...]
    step: int = 1

    def is_same_size(self, other: object) -> bool:
        """Return whether another length varies the number of items of the same lists."""
        return self == other

    def call(self, example: Example, turns: int, more: int = 0) -> Example:
        """Return a call with a number of items more or fewer; it repeats or leaves out items.

        Args:
            example: the call of the user.
            turns: the number.
            more: a further number.
        """
        resized = _Resized(self.inputs, max(self.size + turns + more, 0))
        return with_arguments(example, resized.of)


class _Resized:
    def __init__(self, inputs: Sequence[int], size: int) -> None:
        self._inputs = inputs
        self._size = size
        self._count = 0

    def of(self, value: Any) -> Any:
        """Return a value with resized copies of the lists in it."""
        kind = type(value)
        if kind is dict:
            return {key: self.of(each) for key, each in value.items()}
        if kind not in (list, tuple):
            return value
        self._count += 1
        if self._count - 1 not in self._inputs:
            return value
        # Code may ask whether two of its arguments are one object.
        more = [_copied(value[index % len(value)]) for index in range(len(value), self._size)]
        return kind([*value[: self._size], *more])


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return copy_of(value)
    kind = type(value)
    if kind is dict:
        return {key: _copied(each) for key, each in value.items()}
    return kind([_copied(each) for each in value]) if kind in (list, tuple) else value


def item_counts(example: Example) -> list[list[ItemCount]]:
    """Return the numbers of items of the lists and tuples of tensors, or of parts of one form.

    Lists inside of lists do not count.

    Args:
        example: the call of the user.

    Returns:
        For each number, first all lists that have it together, then each of them alone.
    """
    args, kwargs = example
    found: dict[int, list[int]] = {}
    for number, value in enumerate(_lists_in((*(args or ()), *(kwargs or {}).values()))):
        forms = {_form(each) for each in value}
        if len(forms) == 1 and any(True for _ in tensors_in(value)):
            found.setdefault(len(value), []).append(number)
    groups = [
        [tuple(inputs), *[(each,) for each in inputs[1:] and inputs]] for inputs in found.values()
    ]
    return [
        [ItemCount(count, inputs) for inputs in group]
        for count, group in zip(found, groups, strict=True)
    ]


def _lists_in(values: Iterable[Any]) -> Iterator[Sequence[Any]]:
    for value in values:
        if type(value) in (list, tuple):
            yield value
        elif type(value) is dict:
            yield from _lists_in(value.values())


def _form(value: Any) -> object:
    """Return the form of an item, which is equal for equal containers of tensors."""
    if isinstance(value, torch.Tensor):
        return torch.Tensor
    if type(value) is dict:
        return tuple((key, _form(each)) for key, each in value.items())
    if type(value) in (list, tuple):
        return type(value), *map(_form, value)
    return repr(value)
