"""Conversions between values of Python and torch and the literals of an IR."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch

from layergraph.errors import CaptureError
from layergraph.ir import Record, Symbol, Value
from layergraph.ir.names import is_argument_name
from layergraph.ir.values import is_key
from layergraph.known_objects import parts_of
from layergraph.outputs import ATTRIBUTE, TO_TUPLE, Output, class_facts, output_class

NAMED = (torch.dtype, torch.layout, torch.memory_format)


class UnknownValueError(Exception):
    """A value that has no plain form. Callers catch it and add the place of the value."""


def to_literal(
    value: Any, read: Callable[[Any], Value], readable: Collection[type] = frozenset()
) -> Value:
    """Return the plain form of an argument of a torch function, or of a model's result.

    Args:
        value: nested tuples, lists and dicts of numbers, strings, dtypes and so on.
        read: a function that returns the plain form of tensors and of other values that this
            function does not know, or raises :class:`UnknownValueError`.
        readable: types whose values go to ``read`` even if they look plain.

    Raises:
        UnknownValueError: ``read`` raised it, or a dict has a key that is not plain.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in readable:
        return read(value)
    if kind is tuple:
        return tuple([to_literal(item, read, readable) for item in value])
    if isinstance(value, tuple | list):
        return _sequence_literal(value, read, readable)
    if isinstance(value, dict):
        return _dict_literal(value, read, readable)
    if kind is slice:
        return slice(
            *[to_literal(part, read, readable) for part in (value.start, value.stop, value.step)]
        )
    named = _DTYPES.get(value) if kind is type else value
    if isinstance(named, NAMED):
        return Symbol(str(named))
    for abstract, plain in _NUMBERS_AND_TEXT:
        if isinstance(value, abstract):
            return plain(value)
    return read(value)


def to_graph_literal(
    value: Any, read: Callable[[Any], Value], readable: Collection[type] = frozenset()
) -> Any:
    """Return :func:`to_literal` of a value, with errors for a capture.

    Raises:
        CaptureError: a value inside has no plain form.
    """
    try:
        return to_literal(value, read, readable)
    except UnknownValueError as error:
        raise CaptureError(f"a graph cannot hold {error}") from None


def to_plain_literal(value: Any) -> Value:
    """Return the plain form of a value without tensors.

    Raises:
        UnknownValueError: the value has no plain form.
    """
    return to_literal(value, _refuse)


def _refuse(value: Any) -> Value:
    text = repr(value)
    is_short = len(text) <= _LONGEST and "\n" not in text
    cls = type(value)
    long = f"a {cls.__module__}.{cls.__qualname__}"
    raise UnknownValueError(f"{text}, a {cls.__name__}" if is_short else long)


_LONGEST = 100


_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, type(...)})
# Torch accepts Python's number types as dtypes.
_DTYPES = {bool: torch.bool, complex: torch.complex128, float: torch.float64, int: torch.int64}
# Numbers of numpy are instances of these classes too.
_NUMBERS_AND_TEXT: tuple[Any, ...] = (
    (torch.device, str),
    (type(torch.FloatTensor), lambda kind: f"{kind.__module__}.{kind.__name__}"),
    (numbers.Integral, int),
    (numbers.Real, float),
    (numbers.Complex, complex),
    # str() of a string enumeration member may be its name, so call str.__str__ for its value.
    (str, str.__str__),
)


def _sequence_literal(
    value: tuple[Any, ...] | list[Any], read: Callable[[Any], Value], readable: Collection[type]
) -> Value:
    items = [to_literal(item, read, readable) for item in value]
    if isinstance(value, list):
        return items
    named = record_of(type(value))
    if named is None:
        return tuple(items)
    name, fields = named
    return Record(name, dict(zip(fields, items, strict=True)))


SIZE = "torch.Size"
OUTPUT_CLASS = "layergraph.outputs."
"""The prefix in the names of records that stand for an :class:`~layergraph.outputs.Output`."""
_OF_TORCH = "torch.return_types"


def record_of(kind: type) -> tuple[str, tuple[str, ...]] | None:
    """Return the name and the fields of a class of named tuples; None for another class.

    The name of a class that torch functions return is its path: ``torch.return_types.max``.
    """
    fields = getattr(kind, "_fields", None)
    if fields is not None:
        return kind.__name__, fields
    if kind.__module__ == _OF_TORCH and issubclass(kind, tuple):
        return f"{_OF_TORCH}.{kind.__name__}", kind.__match_args__  # type: ignore[attr-defined]
    return None


def output_record(output: Output, fields: dict[str, Value]) -> Record:
    """Return the plain form of an output, from the plain forms of its fields that are not None."""
    cls = type(output)
    names = cls._field_names
    known = {name: fields.get(name) for name in names}
    # Code may have set fields in another order, or more of them.
    if [name for name in names if name in fields] != [*fields]:
        known = fields | {name: None for name in names if name not in fields}
    return Record(OUTPUT_CLASS + cls._name, known | class_facts(cls))


def output_of(record: Record, values: Sequence[Value]) -> tuple[type[Output], tuple[Value, ...]]:
    """Return the class of the outputs that a record stands for, and its arguments.

    Raises:
        UnknownValueError: the record has fields that an output cannot have.
    """
    kind = record.type.removeprefix(OUTPUT_CLASS)
    said: dict[str, Value] = {}
    fields: dict[Any, Value] = {}
    for (name, plain), value in zip(record.fields.items(), values, strict=True):
        is_fact = name.startswith(ATTRIBUTE)
        said[name] = plain if is_fact else None
        if not is_fact:
            fields[name] = value
    for name, plain in said.items():
        is_name = is_argument_name(name.removeprefix(ATTRIBUTE))
        is_special = name.removeprefix(ATTRIBUTE).startswith("__")
        named = plain if name == TO_TUPLE and isinstance(plain, tuple) else (plain,)
        is_known = (name in fields or (name == TO_TUPLE and plain is None)) or all(
            isinstance(each, str) and each in fields for each in named
        )
        if not is_name or is_special or not is_known:
            raise UnknownValueError(f"{record.type!r} is no output: it cannot have {name!r}")
    if not is_argument_name(kind):
        raise UnknownValueError(f"{kind!r} cannot be the name of the class of an output")
    return output_class(kind, *said.items()), (fields,)


def size_record(sizes: Sequence[Value]) -> Record:
    """Return the plain form of a ``torch.Size`` that a model returns."""
    return Record(SIZE, {str(index): size for index, size in enumerate(sizes)})


def class_of_torch(record: Record) -> type | None:
    """Return the class of torch that a record names; None if torch has none.

    Its constructor takes one tuple.

    Raises:
        UnknownValueError: the class has different fields.
    """
    if record.type == SIZE:
        return torch.Size
    home, _, name = record.type.rpartition(".")
    kind = getattr(torch.return_types, name, None) if home == _OF_TORCH else None
    if not isinstance(kind, type):
        return None
    named = record_of(kind)
    if named is None:
        return None
    if named != (record.type, tuple(record.fields)):
        raise UnknownValueError(f"{record.type} with the fields {', '.join(record.fields)}")
    return kind


def _dict_literal(
    value: dict[Any, Any], read: Callable[[Any], Value], readable: Collection[type]
) -> Value:
    for key in value:
        if not is_key(key):
            raise UnknownValueError(f"the key {key!r} of a dict, a {type(key).__name__}")
    known = None if type(value) is dict else parts_of(value)
    if known is not None:
        name, fields = known
        return Record(name, {each: to_literal(fields[each], read, readable) for each in fields})
    items = dict.items(value) if isinstance(value, Output) else value.items()
    found = {key: to_literal(item, read, readable) for key, item in items}
    return output_record(value, found) if isinstance(value, Output) else found


def torch_value(symbol: Symbol) -> torch.dtype | torch.layout | torch.memory_format:
    """Return the value of torch that a symbol names.

    Raises:
        UnknownValueError: this version of torch has no dtype, layout or memory format of this name.
    """
    package, _, name = symbol.name.partition(".")
    value = getattr(torch, name, None) if package == "torch" else None
    if not isinstance(value, NAMED):
        raise UnknownValueError(f"{symbol.name!r} is no dtype, layout or memory format of torch")
    return value
