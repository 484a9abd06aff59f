"""The objects of other libraries that a model takes and returns: the rows of ``structures``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from layergraph.errors import CaptureError, LayergraphError, PluginError, first_line
from layergraph.functions.fields import attributes, fields, is_attributed, set_fields
from layergraph.functions.foreign import full_name
from layergraph.functions.names import Functions
from layergraph.hook_types.structures import Structure
from layergraph.named import is_dataclass_object, name_of_named
from layergraph.torch2ir.tracing.module_call import TracedValue

# The classes of the numbers that are values of the graph, and the most of them in one argument.
_NUMBERS = (int, float)
_MOST_NUMBERS = 64


class Objects:
    """The classes of objects that a graph can take apart and put together.

    Args:
        rows: the rows of the hook, by class.
        functions: the functions that may become nodes.

    Raises:
        PluginError: the hook ``functions`` does not name a function of a row.
    """

    def __init__(self, rows: Mapping[type, Structure], functions: Functions) -> None:
        self._rows = dict(rows)
        self._functions = functions
        # Whether the graph takes other numbers than the example has, and whether any came.
        self._opens_numbers, self._has_numbers = True, False
        for row in rows.values():
            self.name(row.flatten)
            self.name(row.unflatten)

    def row(self, value: object) -> Structure | None:
        """Return the row for an object; None if no row has its class."""
        row = self._rows.get(type(value))
        if row is None and is_dataclass_object(value):
            row = self._rows[type(value)] = Structure(type(value), fields, set_fields)
        return row

    def is_made(self, value: object) -> bool:
        """Return whether a graph can make such an object, and not only take it apart."""
        row = self.row(value)
        return row is not None and row.unflatten is not set_fields

    def parts(self, value: object) -> Any:
        """Return the parts of an object.

        Raises:
            CaptureError: ``flatten`` refuses this object.
            PluginError: the plugin fails.
        """
        row = self._rows[type(value)]
        return _called(row, row.flatten, value)

    def copy(self, value: object, parts: Any) -> Any:
        """Return a new object of the same class.

        Args:
            value: an object.
            parts: the parts of the new one.

        Raises:
            PluginError: the plugin fails, or returns an object of another class.
        """
        row = self._rows[type(value)]
        if row.unflatten is set_fields:
            # copy.copy() may return the object itself.
            return _called(row, partial(set_fields, parts), object.__new__(type(value)))
        made = _called(row, row.unflatten, parts)
        if type(made) is not row.cls:
            raise PluginError(
                f"{full_name(row.unflatten)} returns a {type(made).__name__}; it must return a "
                f"{row.cls.__name__}"
            )
        return made

    def name(self, function: Callable[..., Any]) -> str:
        """Return the name by which a graph calls a function of a row.

        Raises:
            PluginError: the function has no name.
        """
        name = self._functions.name_of(function)
        if name is None:
            raise PluginError(
                f"{full_name(function)} takes objects apart or makes them, and the hook "
                "'functions' does not name it; let it name this function"
            )
        return name

    def is_number(self, value: Any) -> bool:
        """Return whether a value is a number of which the graph takes others."""
        is_open = self._opens_numbers and type(value) in _NUMBERS
        self._has_numbers |= is_open
        return is_open

    def fixes_numbers(self) -> bool:
        """Fix all numbers from now on; return whether this changes anything."""
        self._opens_numbers = False
        changes, self._has_numbers = self._has_numbers, False
        return changes

    def is_open(self, value: Any) -> bool:
        """Return whether a graph reads parts of a value: tensors, such objects, or few numbers."""
        parts = list(self.values_in(value))
        count = sum(map(self.is_number, parts))
        return 0 < count <= _MOST_NUMBERS or any(
            isinstance(each, torch.Tensor)
            or self.row(each) is not None
            or is_named(each)
            or is_attributed(each)
            for each in parts
        )

    def values_in(self, value: Any, around: tuple[int, ...] = ()) -> Iterator[Any]:
        """Yield a value and those inside it, also those in such objects.

        Args:
            value: the value.
            around: the ids of the values around it.

        Raises:
            CaptureError: a value contains itself.
        """
        if id(value) in around:
            raise CaptureError(
                f"an argument holds a {type(value).__name__} that holds itself, which a graph "
                "cannot; give one that does not"
            )
        yield value
        inside: Any = ()
        if self.row(value) is not None:
            inside = (self.parts(value),)
        elif isinstance(value, tuple | list | dict):
            inside = dict.values(value) if isinstance(value, dict) else value
            if is_attributed(value):
                inside = (*inside, *attributes(value).values())
        for item in inside:
            yield from self.values_in(item, (*around, id(value)))


@dataclass(frozen=True, slots=True)
class GivenObject:
    """An object among the arguments.

    Attributes:
        value: the copy for the model.
        before: the parts of the copy before the run.
        node: its value in the graph.
    """

    value: Any
    before: Any
    node: TracedValue


def is_named(value: object) -> bool:
    """Return whether a graph knows a value by its name: an enumeration's member, a function."""
    # Torch takes some classes for dtypes.
    is_dtype = isinstance(value, type) and value in (bool, int, float, complex)
    return not is_dtype and type(value) is not _TENSOR_TYPE and name_of_named(value) is not None


_TENSOR_TYPE = type(torch.FloatTensor)


def _called(row: Structure, function: Callable[..., Any], value: Any) -> Any:
    try:
        return function(value)
    except LayergraphError:
        raise
    except Exception as error:
        raise PluginError(
            f"{full_name(function)}, which speaks for {row.cls.__name__}, raised "
            f"{type(error).__name__}: {first_line(error)}; mend it, or disable its plugin"
        ) from error
