"""Python expressions of plain values. Text of a model only ever becomes a string literal."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from layergraph.ir import Symbol
from layergraph.literals import NAMED, UnknownValueError, torch_value

Leaf = Callable[[Any], str | None]


class UnspeakableError(Exception):
    """A value without an expression. Callers catch it and add the place."""


def quoted(value: str | bytes) -> str:
    r"""Return a string literal of ASCII characters, with the quotes that formatters prefer.

    Example:
        >>> from layergraph_source.literals import quoted
        >>> print(quoted("it's\n"))
        "it's\n"
    """
    text = ascii(value)
    prefix = "b" if text.startswith("b") else ""
    quote, inside = text[len(prefix)], text[len(prefix) + 1 : -1]
    if quote == "'" and '"' not in inside:
        return f'{prefix}"{inside}"'
    if quote == "'" and "\\'" in inside:  # it has both: double quotes, unless these need more
        plain = inside.replace("\\'", "'")
        if plain.count('"') <= plain.count("'"):
            return f'{prefix}"{_escaped(plain)}"'
    return text


def _escaped(inside: str) -> str:
    return inside.replace('"', '\\"')


def expression(value: Any, names: Leaf, builtin: Callable[[str], str], torch_name: str) -> str:
    """Return an expression for a plain value.

    Args:
        value: the value, of an attribute or an argument.
        names: returns the expression of a leaf that the caller knows; else None.
        builtin: returns the expression of a builtin function.
        torch_name: the name of torch.

    Raises:
        UnspeakableError: there is no expression for it.
    """

    def inner(each: Any) -> str:
        return expression(each, names, builtin, torch_name)

    known = names(value)
    if known is not None:
        return known
    kind = type(value)
    if kind in _ATOMS:
        return "..." if value is ... else repr(value)
    if kind in (str, bytes):
        return quoted(value)
    if kind is float:
        return repr(value) if math.isfinite(value) else f'{builtin("float")}("{value!r}")'
    if kind is complex:
        return f"{builtin('complex')}({inner(value.real)}, {inner(value.imag)})"
    if kind is slice:
        bounds = (value.start, value.stop, value.step)
        return f"{builtin('slice')}({', '.join(map(inner, bounds))})"
    if kind in (tuple, list, dict):
        return _display(value, inner)
    return _of_torch(value, torch_name)


_ATOMS = frozenset({type(None), bool, int, type(...)})


def _display(value: Any, inner: Callable[[Any], str]) -> str:
    if type(value) is dict:
        return f"{{{', '.join(f'{inner(key)}: {inner(item)}' for key, item in value.items())}}}"
    items = [inner(each) for each in value]
    return displayed_tuple(items) if type(value) is tuple else f"[{', '.join(items)}]"


def _of_torch(value: Any, torch_name: str) -> str:
    if type(value) is Symbol:
        try:
            value = torch_value(value)
        except UnknownValueError as error:
            raise UnspeakableError(str(error)) from None
    if isinstance(value, NAMED):
        return f"{torch_name}.{str(value).removeprefix('torch.')}"
    if type(value) is torch.device:
        return f"{torch_name}.device({quoted(str(value))})"
    raise UnspeakableError(f"a {type(value).__name__} is no plain value")


def displayed_tuple(items: list[str]) -> str:
    """Return the display of a tuple.

    Example:
        >>> from layergraph_source.literals import displayed_tuple
        >>> displayed_tuple(["1"]), displayed_tuple([])
        ('(1,)', '()')
    """
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
