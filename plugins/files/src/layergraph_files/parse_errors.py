"""Errors with their place in the JSON of a file."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

from layergraph.errors import FileError, InvalidIrError, Place, Problem

PathName = str | PathLike[str]

JsonPath = tuple["JsonPath", str | int] | None
"""A place in a JSON text: the path of the container, and the key or index; None for the whole."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A value in parsed JSON that stands for invalid text, such as ``NaN`` or a repeated key.

    Attributes:
        message: the error in the text.
        remedy: how to correct the text.
    """

    message: str
    remedy: str


class ParseError(Exception):
    """An error at a place in a file. :func:`reading` turns it into a FileError.

    Args:
        spot: the place.
        message: the error.
        remedy: how to correct it.
    """

    def __init__(self, spot: JsonPath, message: str, remedy: str) -> None:
        super().__init__(message)
        self.spot = spot
        self.message = message
        self.remedy = remedy


@contextmanager
def reading(path: PathName, document: object = None) -> Iterator[None]:
    """Add the path of a file to errors.

    Args:
        path: the file.
        document: the parsed JSON of the file, from which messages take the names of items.

    Raises:
        FileError: for a ParseError or an OSError.
        InvalidIrError: for an InvalidIrError.
    """
    try:
        yield
    except ParseError as fault:
        where = "".join(f", {each}" for each in _parts(fault.spot, document))
        message = _cut(fault.message, _LONGEST_MESSAGE)
        remedy = _cut(fault.remedy, _LONGEST_MESSAGE)
        raise FileError(f"{shown(path)}{where}: {message}; {remedy}") from None
    except InvalidIrError as error:
        file = Place("file", fspath(path))
        problems = [
            Problem(each.place.within(file), each.message, each.remedy) for each in error.problems
        ]
        raise InvalidIrError(problems) from None
    except OSError as error:
        remedy = "check the path, its permissions and the free space on the disk"
        raise FileError(f"{shown(path)}: {error.strerror or error}; {remedy}") from error


def shown(path: PathName) -> str:
    """Return a path for a message: quoted, with escapes, if it has unprintable characters."""
    text = fspath(path)
    return text if text.isprintable() else repr(text)


# Messages cut the names and texts of a file, which may have any length.
_LONGEST_NAME = 200
_LONGEST_MESSAGE = 1000


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _parts(spot: JsonPath, document: Any) -> Iterator[str]:
    """Yield the parts of a place, with the names of items that have one: ``nodes[3] 'add'``."""
    keys: list[str | int] = []
    while spot is not None:
        spot, key = spot
        keys.append(key)
    part = ""
    for key in reversed(keys):
        if isinstance(key, int):
            part += f"[{key}]"
        else:
            if part:
                yield part
            short = _cut(key, _LONGEST_NAME)
            part = short if short.isidentifier() else repr(short)
        try:
            document = document[key]
        except (LookupError, TypeError):
            document = None
        name = document.get("name") if isinstance(document, dict) else None
        if isinstance(name, str):
            yield f"{part} {_cut(name, _LONGEST_NAME)!r}"
            part = ""
    if part:
        yield part


def kind_of(form: object) -> str:
    """Return the name of a value's JSON type."""
    return {
        type(None): "null",
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }[type(form)]


def expect(form: Any, kind: type, spot: JsonPath, what: str) -> Any:
    """Return a parsed value if it has the right JSON type.

    Raises:
        ParseError: it has another type.
    """
    if type(form) is not kind:
        refuse_unreadable(form, spot)
        raise ParseError(spot, f"{kind_of(form)} where {kind_of(kind())} belongs", f"write {what}")
    return form


def refuse_unreadable(form: object, spot: JsonPath) -> None:
    """Raise if a parsed value stands for invalid text.

    Raises:
        ParseError: the value is an :class:`Unreadable`.
    """
    if type(form) is Unreadable:
        raise ParseError(spot, form.message, form.remedy)


def expect_fields(form: Any, spot: JsonPath, required: str, optional: str = "") -> dict[str, Any]:
    """Return a parsed object if it has all required fields and no unknown ones.

    Args:
        form: the parsed value.
        spot: its place.
        required: the names of required fields, separated by blanks.
        optional: the names of optional fields, separated by blanks.

    Raises:
        ParseError: it is not an object, lacks a field, or has an unknown one.
    """
    fields: dict[str, Any] = expect(form, dict, spot, "an object")
    needed, known = _names(required, ""), _names(required, optional)
    if needed.keys() <= fields.keys() <= known.keys():
        return fields
    for name in fields:
        if name not in known:
            raise ParseError(
                (spot, name), "there is no such field", f"leave it out; known: {', '.join(known)}"
            )
    for name in needed:
        if name not in fields:
            raise ParseError(spot, f"the field {name!r} is missing", "add it")
    return fields


@functools.cache
def _names(required: str, optional: str) -> dict[str, None]:
    return dict.fromkeys(f"{required} {optional}".split())
