"""Example calls of other lengths, made from the user's example."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from layergraph.capturing import Example
from layergraph.tensors.memory import PLAIN_CLASSES


@dataclass(frozen=True, slots=True)
class Length:
    """A size that one or several inputs have.

    Attributes:
        size: the size.
        step: its growth per turn.
        inputs: the indices of the tensors that have it, each with the dimension; None: all
            dimensions of this size.
    """

    size: int
    step: int
    inputs: tuple[tuple[int, int], ...] | None = None

    def is_same_size(self, other: object) -> bool:
        """Return whether another length varies the same size of the same inputs."""
        if not isinstance(other, Length):
            return False
        return (self.size, self.inputs) == (other.size, other.inputs)

    def varies_all_of(self, other: Length) -> bool:
        """Return whether this length varies each size that another one varies."""
        if self.size != other.size:
            return False
        inputs = other.inputs
        return self.inputs is None or (inputs is not None and {*inputs} <= {*self.inputs})

    def call(self, example: Example, turns: int, more: int = 0) -> Example:
        """Return a call that is a number of turns longer or shorter.

        Args:
            example: the call of the user.
            turns: the number of turns.
            more: a further growth of the size.
        """
        size = max(self.size + turns * self.step + more, 0)
        return _Resized(lambda number, dim, own: size if self._has(number, dim, own) else own).call(
            example
        )

    def _has(self, number: int, dim: int, size: int) -> bool:
        return size == self.size and (self.inputs is None or (number, dim) in self.inputs)


class _Resized:
    """Copies of example calls, of other sizes.

    Args:
        size_of: returns the new size for the number of a tensor, a dimension, and its size.
    """

    def __init__(self, size_of: Callable[[int, int, int], int]) -> None:
        self._size_of = size_of
        self._count = 0

    def call(self, example: Example) -> Example:
        """Return a call with resized copies of its tensors."""
        return with_arguments(example, self.of)

    def of(self, value: Any) -> Any:
        """Return a value with resized copies of the tensors in it."""
        if isinstance(value, torch.Tensor):
            self._count += 1
            return self._tensor(value, self._count - 1)
        kind = type(value)
        if kind is dict:
            return {key: self.of(each) for key, each in value.items()}
        return kind([self.of(each) for each in value]) if kind in (list, tuple) else value

    def _tensor(self, tensor: torch.Tensor, number: int) -> torch.Tensor:
        if type(tensor) not in PLAIN_CLASSES:
            return tensor
        result = tensor.detach()
        for dim, size in enumerate(tensor.shape):
            new = self._size_of(number, dim, size)
            if new != size:
                whole, rest = divmod(new, size)
                # Concatenating whole copies is much faster than indexing.
                result = torch.cat([*[result] * whole, result.narrow(dim, 0, rest)], dim)
        return result.requires_grad_(tensor.requires_grad) if result is not tensor else tensor


def with_arguments(example: Example, of: Callable[[Any], Any]) -> Example:
    """Return a call with what a function makes of each argument.

    Args:
        example: the call.
        of: the function.
    """
    args, kwargs = example
    return tuple(map(of, args or ())), {name: of(each) for name, each in (kwargs or {}).items()}


def lengths(example: Example, turns: int, each: int = 1) -> Iterator[Length]:
    """Yield sizes of the inputs on which a number of turns may depend, the likely ones first.

    Args:
        example: the call of the user.
        turns: the number.
        each: the growth of the number per turn.
    """
    shapes = [tensor.shape for tensor in _tensors_of(example)]
    sizes = dict.fromkeys(size for shape in shapes for size in shape)
    steps = [(size, max(size // turns, 1)) for size in sizes if _is_likely(size, turns)]
    steps += [(size, 1) for size, step in steps if step > 1]
    steps.sort(key=lambda known: _unlikeliness(known[0], known[1], turns))
    for size, one in steps:
        step = one * each
        yield Length(size, step)
        groups = by_dimension(shapes, size)
        places = sorted(place for group in groups for place in group)
        groups += [(place,) for place in places]
        for group in dict.fromkeys(groups):
            if len(group) < len(places):
                yield Length(size, step, group)


def by_dimension(shapes: Sequence[torch.Size], size: int) -> list[tuple[tuple[int, int], ...]]:
    """Return the places of a size, those in one dimension together.

    Args:
        shapes: the shapes of the tensors.
        size: the size.

    Returns:
        The indices of the tensors that have the size, each with the dimension.
    """
    groups: dict[int, list[tuple[int, int]]] = {}
    for number, shape in enumerate(shapes):
        for dim, own in enumerate(shape):
            if own == size:
                groups.setdefault(dim, []).append((number, dim))
    return [tuple(each) for each in groups.values()]


def sizes_of(example: Example) -> set[int]:
    """Return all sizes of the tensors in a call."""
    return {size for tensor in _tensors_of(example) for size in tensor.shape}


def with_other_sizes(example: Example) -> Iterator[Example]:
    """Yield cheap calls whose inputs have other sizes, except for sizes of 1.

    Large sizes are halved, and small ones grow by one, so that none becomes 1 or 0. The second call
    keeps sizes that may be the channels of a picture.
    """
    for kept in (1, _CHANNELS):
        yield _Resized(partial(_other_size, kept)).call(example)


def _other_size(kept: int, _number: int, _dim: int, size: int) -> int:
    return size // 2 if size > _SMALL else size + (size > kept)


def longer_calls(example: Example) -> Iterator[Example]:
    """Yield a few calls in which a size of the inputs is one larger, the largest size first."""
    for size in sorted(sizes_of(example) - {0, 1}, reverse=True)[:_MOST_CALLS]:
        yield Length(size, 1).call(example, 1)


def _is_likely(size: int, turns: int) -> bool:
    """Return whether a number of turns may depend on a size: it is near the size, or divides it."""
    if size > 1 and (size % turns == 0 or abs(size - turns) <= _NEAR):
        return True
    return turns > 2 * _NEAR and size > turns and size % turns <= _NEAR


_NEAR = 3
_MOST_CALLS = 3
# The largest size that is small.
_SMALL = 5
_CHANNELS = 3


def _unlikeliness(size: int, step: int, turns: int) -> tuple[int, int]:
    """Return a sort key: the less likely that a number of turns depends on a size, the larger."""
    if size == turns:
        return 0, 0
    if step > 1 and size % turns == 0:
        return 1, size
    return (2 if step == 1 else 3), abs(size - turns)


def _tensors_of(example: Example) -> Iterator[torch.Tensor]:
    return _tensors((*(example[0] or ()), *(example[1] or {}).values()))


def _tensors(values: Sequence[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif type(value) in (list, tuple):
            yield from _tensors(value)
        elif type(value) is dict:
            yield from _tensors([*value.values()])
