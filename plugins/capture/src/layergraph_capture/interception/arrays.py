"""Arrays of numpy that model code turns into tensors: their numbers become constants.

Capture guards each number of a tensor or of a size that Python code reads, refuses ``numpy()`` of
a tensor, and compares the generators of numpy. So an array has the numbers that it has in any call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from layergraph.tensors.memory import version
from layergraph.torch2ir.tracing.lines import code_place
from layergraph.torch2ir.tracing.patches import Patch
from layergraph_capture.symbolic.symbolic_int import lost, plain

if TYPE_CHECKING:
    from layergraph_capture.interception.tensor_queries import Query
    from layergraph_capture.tracer import EagerTracer

_SHARED = (
    "a change of the memory that an array of numpy and a tensor share; make the tensor with "
    "torch.tensor"
)
# Functions that take an array where they take a tensor: those whose results share its memory, and
# those that copy it.
_SHARING = frozenset({"torch.as_tensor", "torch.asarray"})
_COPYING = frozenset({"torch.tensor", "operator.getitem", "operator.setitem"})


class Arrays:
    """Makes tensors of arrays, and records them.

    Args:
        run: the tracer.
    """

    def __init__(self, run: EagerTracer) -> None:
        self._run = run
        # Each array that a tensor shares memory with, its bytes, the tensor, its version, the line.
        self._shared: list[tuple[Any, bytes, torch.Tensor, int, str]] = []

    def patches(self) -> Iterator[Patch]:
        """Yield the patch of the function that takes only arrays."""
        original: Callable[..., Any] = torch.from_numpy

        def from_numpy(array: Any) -> Any:
            if self._run.is_recording() and is_array(array):
                return self._made(original, array)
            return original(array)

        yield torch, "from_numpy", from_numpy

    def queries(self) -> dict[Any, Query]:
        """Return the calls of factories that take a dtype from numbers of numpy."""
        return dict.fromkeys((torch.tensor, torch.as_tensor, torch.asarray), self._typed)

    def _typed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a factory. State the dtype, as the graph has plain numbers."""
        run = self._run
        if kwargs.get("dtype") is None and any(map(_is_number, _inside(args))):
            kwargs = kwargs | {"dtype": run.unrecorded(func, args, kwargs).dtype}
        return run.function(f"torch.{func.__name__}", func, args, kwargs)

    def as_tensors(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, Any, tuple[Any, ...]] | None:
        """Return a call with tensors in place of arrays.

        Args:
            name: the name of a function that has arrays among its arguments.
            func: the function.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Returns:
            The name, the function and the arguments; None if there is no array that it takes.
        """
        sharing = name in _SHARING
        is_plain = kwargs.keys() <= {"dtype", "device"}
        if (
            not (sharing or name in _COPYING)
            or not is_plain
            or not any(map(is_array, _inside(args)))
        ):
            return None
        make: Callable[..., Any] = torch.from_numpy if sharing else torch.tensor
        given = [self._replaced(make, each) for each in args]
        if func is torch.tensor:  # nothing else holds this tensor: it needs no second copy
            name, func = "torch.as_tensor", torch.as_tensor
        return name, func, tuple(given)

    def _replaced(self, make: Callable[..., Any], value: Any) -> Any:
        if type(value) is tuple:
            return tuple([self._replaced(make, each) for each in value])
        return self._made(make, value) if is_array(value) else value

    def _made(self, make: Callable[..., Any], array: Any) -> torch.Tensor:
        run = self._run
        tensor = run.unrecorded(make, (_of_numbers(array),), {})
        if make is not torch.tensor:
            number = run.unrecorded(version, (tensor,), {})
            before = array.tobytes(), tensor, number, code_place()
            self._shared.append((array, *before))
        made: torch.Tensor = run.tensors.fresh(_itself, tensor)
        return made

    def refuse_changed(self) -> None:
        """Refuse arrays that have changed since the model made a tensor of them."""
        for array, before, tensor, number, line in self._shared:
            if array.tobytes() != before or version(tensor) != number:
                self._run.refusals.add(_SHARED, line)


def _inside(args: Sequence[Any]) -> Iterator[Any]:
    for each in args:
        yield from _inside(each) if type(each) in (tuple, list) else (each,)


def _is_number(value: object) -> bool:
    number = plain(value)
    return type(number).__module__ == "numpy" and not is_array(number)


def is_array(value: object) -> bool:
    """Return whether a value is an array of numpy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _of_numbers(array: Any) -> Any:
    """Return an array of numbers for one of objects, which numpy makes of symbolic numbers."""
    if array.dtype != object:
        return array
    numpy: Any = sys.modules["numpy"]
    return numpy.array([*map(lost, array.flat)]).reshape(array.shape)


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
