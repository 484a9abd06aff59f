"""The bytes of plain values: two values have the same bytes only if they are equal.

Each text and each container begins with its kind and its length, so no value can imitate another.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from layergraph.errors import ArgumentError
from layergraph.ir.values import Body, Record, Ref, Symbol, Value

Leaf = Callable[[Any], bytes]
"""A function that returns the bytes of a reference to a node or to a body."""


def text(kind: bytes, value: str) -> bytes:
    """Return the bytes of a text of some kind."""
    return _sized(kind, value.encode("utf-8", "surrogatepass"))


def group(kind: bytes, items: list[bytes]) -> bytes:
    """Return the bytes of items, each of which begins with its length."""
    return b"%s%d(%s" % (kind, len(items), b"".join(items))


def number(kind: bytes, value: int) -> bytes:
    """Return the bytes of an integer of some kind."""
    return b"%s%x;" % (kind, value)


def value_bytes(value: Value, refer: Leaf) -> bytes:
    """Return the bytes of a plain value.

    Args:
        value: nested plain values: see :mod:`layergraph.ir.values`.
        refer: returns the bytes of a :class:`~layergraph.ir.Ref` or Body.

    Raises:
        ArgumentError: the value contains something that is not a plain value.
    """
    kind: type = type(value)
    if kind is Ref or kind is Body:
        return refer(value)
    encode = _ATOMS.get(kind)
    if encode is not None:
        return encode(value)
    if kind is dict:
        items = [value_bytes(part, refer) for item in value.items() for part in item]
        return group(b"D", items)
    if kind is list or kind is tuple:
        return group(_SEQUENCES[kind], [value_bytes(each, refer) for each in value])
    if kind is slice:
        ends = (value.start, value.stop, value.step)
        return group(b"/", [value_bytes(each, refer) for each in ends])
    if kind is Record:
        return text(b"R", value.type) + value_bytes(value.fields, refer)
    raise ArgumentError(f"{value!r:.60}, a {kind.__name__}, is not a plain value; check the IR")


def _sized(kind: bytes, content: bytes) -> bytes:
    return b"%s%d:%s" % (kind, len(content), content)


def _float(value: float) -> bytes:
    return b"f" + (b"nan-----" if value != value else struct.pack(">d", value))


_SEQUENCES: dict[type, bytes] = {list: b"[", tuple: b"("}
_ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"N",
    type(...): lambda _: b".",
    bool: lambda value: b"T" if value else b"F",
    int: lambda value: number(b"i", value),
    float: _float,
    complex: lambda value: b"c" + _float(value.real) + _float(value.imag),
    str: lambda value: text(b"s", value),
    bytes: lambda value: _sized(b"b", value),
    Symbol: lambda value: text(b"y", value.name),
}
