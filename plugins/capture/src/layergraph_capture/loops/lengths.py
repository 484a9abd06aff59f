"""Example calls of other lengths, made from the user's example."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from layergraph.capturing import Example
from layergraph.tensors.memory import PLAIN_CLASSES

# The dimension of an input that is an int, and that of the largest number of a tensor.
OF_INT = -1
OF_VALUES = -2

Shape = Mapping[int, int]
"""The size of each dimension of an input."""


@dataclass(frozen=True, slots=True)
class Length:
    """A size that one or several inputs have.

    An input that is an int counts as a size, and so does the largest number of a small tensor of
    integers, such as the lengths of sequences.

    Attributes:
        size: the size.
        step: its growth per turn.
        inputs: the indices of the inputs that have it, each with the dimension; None: all
            dimensions of this size, and ints.
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
        is_among = dim != OF_VALUES if self.inputs is None else (number, dim) in self.inputs
        return size == self.size and is_among


class _Resized:
    """Copies of example calls, of other sizes.

    Args:
        size_of: returns the new size for the number of an input, a dimension, and its size.
    """

    def __init__(self, size_of: Callable[[int, int, int], int]) -> None:
        self._size_of = size_of
        self._count = 0

    def call(self, example: Example) -> Example:
        """Return a call with resized copies of its tensors, and with other ints."""
        return with_arguments(example, self.of)

    def of(self, value: Any) -> Any:
        """Return a value with resized copies of the tensors in it, and with other ints."""
        if isinstance(value, torch.Tensor):
            self._count += 1
            return self._tensor(value, self._count - 1)
        if type(value) is int:
            self._count += 1
            return self._size_of(self._count - 1, OF_INT, value)
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
        for largest in _largest(tensor):
            new = self._size_of(number, OF_VALUES, largest)
            if new != largest:
                result = result.masked_fill(result == largest, new)
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
    shapes = shapes_of(example)
    steps = [(size, max(size // turns, 1)) for size in sizes_of(example) if _is_likely(size, turns)]
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
    for number, value in enumerate(_inputs_of(example)):
        for largest in _largest(value) if isinstance(value, torch.Tensor) else ():
            if _is_likely(largest, turns):
                yield Length(largest, each, ((number, OF_VALUES),))


def by_dimension(shapes: Sequence[Shape], size: int) -> list[tuple[tuple[int, int], ...]]:
    """Return the places of a size, those in one dimension together.

    Args:
        shapes: the shapes of the inputs.
        size: the size.

    Returns:
        The indices of the inputs that have the size, each with the dimension.
    """
    groups: dict[int, list[tuple[int, int]]] = {}
    for number, shape in enumerate(shapes):
        for dim, own in shape.items():
            if own == size:
                groups.setdefault(dim, []).append((number, dim))
    return [tuple(each) for each in groups.values()]


def sizes_of(example: Example) -> list[int]:
    """Return the sizes of the inputs of a call, each once."""
    return [*dict.fromkeys(size for shape in shapes_of(example) for size in shape.values())]


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
    shapes = shapes_of(example)
    sizes = {size for shape in shapes for dim, size in shape.items() if dim != OF_INT}
    for size in sorted(sizes - {0, 1}, reverse=True)[:_MOST_CALLS]:
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


def shapes_of(example: Example) -> list[Shape]:
    """Return the shapes of the inputs of a call, in order.

    Args:
        example: the call.
    """
    return [
        dict(enumerate(each.shape)) if isinstance(each, torch.Tensor) else {OF_INT: each}
        for each in _inputs_of(example)
    ]


def _inputs_of(example: Example) -> Iterator[torch.Tensor | int]:
    return _inputs((*(example[0] or ()), *(example[1] or {}).values()))


def _inputs(values: Sequence[Any]) -> Iterator[torch.Tensor | int]:
    for value in values:
        if isinstance(value, torch.Tensor) or type(value) is int:
            yield value
        elif type(value) in (list, tuple):
            yield from _inputs(value)
        elif type(value) is dict:
            yield from _inputs([*value.values()])


def _largest(tensor: torch.Tensor) -> Iterator[int]:
    """Yield the largest number of a small tensor of integers; nothing for any other tensor."""
    is_plain = type(tensor) in PLAIN_CLASSES and tensor.dtype in _INTEGERS
    is_read = is_plain and tensor.layout is torch.strided and not tensor.is_meta
    if is_read and 0 < tensor.numel() <= _MOST_VALUES:
        yield int(tensor.max())


_INTEGERS = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})
_MOST_VALUES = 64
