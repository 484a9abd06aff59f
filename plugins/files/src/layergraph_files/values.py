"""Plain values as JSON. A value that JSON lacks is an object with one key: ``{"ref": "x"}``."""

from __future__ import annotations

import binascii
import math
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from types import EllipsisType
from typing import Any, TypeVar

from layergraph.errors import brief
from layergraph.ir import Body, Record, Ref, Symbol, Value
from layergraph.ir.values import MAX_INTEGER_BITS, MAX_NESTING, MAX_NUMBER_KEYS, is_key
from layergraph_files.parse_errors import JsonPath, ParseError, expect, refuse_unreadable

# Other JSON readers round integers beyond this one, because they read them as doubles.
_EXACT = 2**53
_UNUSUAL = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_HEX = re.compile("-?0x[0-9a-f]+")
_MOST_DIGITS = len("-0x") + MAX_INTEGER_BITS // 4

T = TypeVar("T")

MAX_NAME = 4096
"""The most characters of a name in a file, and of a path of names."""


def encode(value: Value) -> Any:
    """Return the JSON form of a plain value.

    Args:
        value: a value that :func:`layergraph.ir.check` accepts.
    """
    kind = type(value)
    if kind is int:
        return value if -_EXACT <= value <= _EXACT else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if kind is list:
        return [encode(item) for item in value]
    if kind in _OBJECTS:
        name, payload, _ = _OBJECTS[kind]
        return {name: payload(value)}
    return value


def decode(form: Any, spot: JsonPath, depth: int = 0) -> Value:
    """Return the plain value of a JSON form.

    Args:
        form: the parsed JSON.
        spot: its place, for errors.
        depth: the number of values that enclose it.

    Raises:
        ParseError: the form is not that of a value.
    """
    kind = type(form)
    if kind is int and not -_EXACT <= form <= _EXACT:
        raise ParseError(
            spot, f"{form} is too large for a number of JSON", f'write {{"int": "{form:#x}"}}'
        )
    if kind is not list and kind is not dict:
        refuse_unreadable(form, spot)
        return form
    if depth > MAX_NESTING:
        raise ParseError(spot, "it is nested too deeply", f"nest values {MAX_NESTING} deep")
    if kind is list:
        return [decode(item, (spot, index), depth + 1) for index, item in enumerate(form)]
    name = next(iter(form), None)
    if len(form) != 1 or name not in _READERS:
        known = ", ".join(_READERS)
        raise ParseError(spot, "the object is not a value", f"give it one key, of {known}")
    return _READERS[name](form[name], (spot, name), depth + 1)


def read_name(form: Any, spot: JsonPath, what: str) -> str:
    """Return a parsed string if it can be a name.

    Args:
        form: the parsed JSON.
        spot: its place, for errors.
        what: the kind of name that belongs there, for errors.

    Raises:
        ParseError: it is not a string, or longer than :data:`MAX_NAME`.
    """
    if type(form) is str and len(form) <= MAX_NAME:
        return form
    name: str = expect(form, str, spot, what)
    if len(name) > MAX_NAME:
        remedy = f"use up to {MAX_NAME} characters"
        raise ParseError(spot, f"the name has {len(name)} characters", remedy)
    return name


def encode_bytes(data: bytes) -> str:
    """Return bytes as text in base64."""
    return b64encode(data).decode("ascii")


def decode_bytes(form: Any, spot: JsonPath) -> bytes:
    """Return the bytes of a string in base64.

    Raises:
        ParseError: it is not base64.
    """
    text: str = expect(form, str, spot, "bytes in base64")
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ParseError(spot, "the string is not base64", "write bytes in base64") from None


def _integer(form: Any, spot: JsonPath, _depth: int) -> int:
    text: str = expect(form, str, spot, "a hexadecimal number")
    if len(text) > _MOST_DIGITS:
        message = f"{text[:40]!r}… has more digits than an integer may have"
        raise ParseError(spot, message, f"write at most {MAX_INTEGER_BITS} bits")
    if not _HEX.fullmatch(text):
        raise ParseError(spot, f"{text[:40]!r} is not hexadecimal", 'write it as in "-0xff"')
    return int(text, 16)


def _float(form: Any, spot: JsonPath, _depth: int) -> float:
    text: str = expect(form, str, spot, "the name of a number")
    if text not in _UNUSUAL:
        raise ParseError(
            spot, f"{text[:40]!r} is not the name of a number", "write inf, -inf or nan"
        )
    return _UNUSUAL[text]


def _complex(form: Any, spot: JsonPath, depth: int) -> complex:
    parts = _items(form, spot, depth, "the real and the imaginary part", 2)
    for index, part in enumerate(parts):
        if type(part) is not float:
            raise ParseError(
                (spot, index),
                f"{brief(part)} is not a float",
                'write it as in {"complex": [0.0, 1.0]}',
            )
    return complex(*parts)


def _ellipsis(form: Any, spot: JsonPath, _depth: int) -> EllipsisType:
    expect(form, type(None), spot, "null")
    return ...


def _items(
    form: Any, spot: JsonPath, depth: int, what: str, count: int | None = None
) -> list[Value]:
    items: list[Any] = expect(form, list, spot, f"an array of {what}")
    if count not in (None, len(items)):
        raise ParseError(spot, f"there are {len(items)} items", f"write {what}")
    return [decode(item, (spot, index), depth) for index, item in enumerate(items)]


def _dict(form: Any, spot: JsonPath, depth: int) -> dict[Any, Value]:
    found: dict[Any, Value] = {}
    numbers = 0
    for index, pair in enumerate(expect(form, list, spot, "an array of keys with values")):
        here = (spot, index)
        key, value = _items(pair, here, depth, "a key and a value", 2)
        if not is_key(key):
            raise ParseError(
                (here, 0),
                f"a {type(key).__name__} cannot be a key",
                "use a number, a string, or a tuple of these",
            )
        numbers += type(key) is not str
        if numbers > MAX_NUMBER_KEYS:
            message = f"more than {MAX_NUMBER_KEYS} keys are not strings"
            raise ParseError((here, 0), message, "use strings as keys, or fewer keys")
        if key in found:
            raise ParseError((here, 0), f"the key {brief(key)} appears twice", "write it once")
        found[key] = value
    return found


def _record(form: Any, spot: JsonPath, depth: int) -> Record:
    parts = expect(form, list, spot, "the name of the class, and its fields")
    if len(parts) != 2:
        raise ParseError(spot, f"there are {len(parts)} items", "write the name and the fields")
    fields = {}
    for index, pair in enumerate(expect(parts[1], list, (spot, 1), "names with values")):
        here = ((spot, 1), index)
        if len(expect(pair, list, here, "a name and a value")) != 2:
            raise ParseError(here, f"there are {len(pair)} items", "write a name and a value")
        name = read_name(pair[0], (here, 0), "the name of a field")
        if name in fields:
            raise ParseError((here, 0), f"the field {name!r} appears twice", "write it once")
        fields[name] = decode(pair[1], (here, 1), depth)
    return Record(read_name(parts[0], (spot, 0), "the name of a class"), fields)


def _symbol(form: Any, spot: JsonPath, _depth: int) -> Symbol:
    return Symbol(read_name(form, spot, "the name of a symbol"))


def _ref(form: Any, spot: JsonPath, _depth: int) -> Ref:
    return Ref(read_name(form, spot, "the name of a node"))


def _body(form: Any, spot: JsonPath, _depth: int) -> Body:
    return Body(read_name(form, spot, "the name of an implementation"))


_Reader = Callable[[Any, JsonPath, int], Value]

# For each type of value: the key of its JSON object, the writer of its payload, and the reader.
_OBJECTS: dict[type, tuple[str, Callable[[Any], Any], _Reader]] = {
    tuple: (
        "tuple",
        lambda value: [encode(item) for item in value],
        lambda form, spot, depth: tuple(_items(form, spot, depth, "values")),
    ),
    dict: (
        "dict",
        lambda value: [[encode(key), encode(item)] for key, item in value.items()],
        _dict,
    ),
    slice: (
        "slice",
        lambda value: [encode(value.start), encode(value.stop), encode(value.step)],
        lambda form, spot, depth: slice(*_items(form, spot, depth, "start, stop and step", 3)),
    ),
    Record: (
        "record",
        lambda value: [value.type, [[name, encode(item)] for name, item in value.fields.items()]],
        _record,
    ),
    Ref: ("ref", lambda value: value.node, _ref),
    Body: ("body", lambda value: value.implementation, _body),
    Symbol: ("symbol", lambda value: value.name, _symbol),
    complex: ("complex", lambda value: [encode(value.real), encode(value.imag)], _complex),
    bytes: ("bytes", encode_bytes, lambda form, spot, _depth: decode_bytes(form, spot)),
    EllipsisType: ("ellipsis", lambda _value: None, _ellipsis),
    int: ("int", hex, _integer),
    float: ("float", str, _float),
}
_READERS = {name: reader for name, _, reader in _OBJECTS.values()}


def read_names(fields: Mapping[str, Any], spot: JsonPath, *names: str) -> list[str]:
    """Return the names that several fields of a parsed object hold.

    Raises:
        ParseError: as for :func:`read_name`.
    """
    return [read_name(fields[name], (spot, name), "a string") for name in names]


def read_values(fields: Mapping[str, Any], spot: JsonPath, name: str) -> dict[str, Value]:
    """Return the values by name that a field of a parsed object holds; empty without the field.

    Raises:
        ParseError: the field has another form.
    """
    if name not in fields:
        return {}
    spot = (spot, name)
    values = expect(fields[name], dict, spot, "an object of values by name")
    decoded = {key: decode(value, (spot, key)) for key, value in values.items()}
    return {read_name(key, spot, "a name"): value for key, value in decoded.items()}


def read_items(form: Any, spot: JsonPath, read: Callable[[Any, JsonPath], T]) -> dict[str, T]:
    """Return the items of a parsed array by their names.

    Args:
        form: the parsed array, of objects that each have a name.
        spot: its place.
        read: a function that returns an item from its form and place.

    Raises:
        ParseError: the form is not an array of objects, or two items have one name.
    """
    found: dict[str, T] = {}
    for index, item in enumerate(expect(form, list, spot, "an array")):
        here = (spot, index)
        name = expect(item, dict, here, "an object").get("name")
        if type(name) is str and name in found:
            raise ParseError(here, f"the name {name!r} appears twice", "give each its own")
        found[name] = read(item, here)
    return found
