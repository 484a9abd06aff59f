"""Plain values and the values of torch that they stand for."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Collection
from typing import Any

import torch

from layergraph.ir import Record, Symbol, Value

NAMED = (torch.dtype, torch.layout, torch.memory_format)


class UnknownValueError(Exception):
    """A value that has no plain form. Callers know where it was met, and say so."""


def lower(
    value: Any, read: Callable[[Any], Value], readable: Collection[type] = frozenset()
) -> Value:
    """The plain form of what is given to a torch function, or returned by a model.

    Args:
        value: nested tuples, lists and dicts of numbers, strings, dtypes and so on.
        read: gives the form of tensors and of whatever else this function does not know; it
            raises :class:`UnknownValueError` for what it does not know either.
        readable: types whose values are given to ``read`` even if they look plain.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in readable:
        return read(value)
    if isinstance(value, tuple):
        return _lower_tuple(value, read, readable)
    if isinstance(value, list):
        return [lower(item, read, readable) for item in value]
    if isinstance(value, dict):
        return _lower_dict(value, read, readable)
    if kind is slice:
        return slice(
            *[lower(part, read, readable) for part in (value.start, value.stop, value.step)]
        )
    if isinstance(value, NAMED):
        return Symbol(str(value))
    for abstract, plain in _NUMBERS_AND_TEXT:
        if isinstance(value, abstract):
            return plain(value)
    return read(value)


def lower_plain(value: Any) -> Value:
    """The plain form of a value that no tensor is in.

    Raises:
        UnknownValueError: it has none.
    """
    return lower(value, _refuse)


def _refuse(value: Any) -> Value:
    raise UnknownValueError(f"{value!r}, a {type(value).__name__}")


_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, type(...)})
# numpy's numbers are among these.
_NUMBERS_AND_TEXT: tuple[Any, ...] = (
    (torch.device, str),
    (numbers.Integral, int),
    (numbers.Real, float),
    (numbers.Complex, complex),
    (str, str),
)


def _lower_tuple(
    value: tuple[Any, ...], read: Callable[[Any], Value], readable: Collection[type]
) -> Value:
    items = [lower(item, read, readable) for item in value]
    fields = None if type(value) is tuple else getattr(value, "_fields", None)
    if fields is None:
        return tuple(items)
    return Record(type(value).__name__, dict(zip(fields, items, strict=True)))


def _lower_dict(
    value: dict[Any, Any], read: Callable[[Any], Value], readable: Collection[type]
) -> dict[Any, Value]:
    for key in value:
        if type(key) not in _PLAIN:
            raise UnknownValueError(f"the key {key!r} of a dict, a {type(key).__name__}")
    return {key: lower(item, read, readable) for key, item in value.items()}


def torch_value(symbol: Symbol) -> torch.dtype | torch.layout | torch.memory_format:
    """What a symbol stands for.

    Raises:
        UnknownValueError: it is no dtype, layout or memory format of this version of torch.
    """
    package, _, name = symbol.name.partition(".")
    value = getattr(torch, name, None) if package == "torch" else None
    if not isinstance(value, NAMED):
        raise UnknownValueError(f"{symbol.name!r} is no dtype, layout or memory format of torch")
    return value
