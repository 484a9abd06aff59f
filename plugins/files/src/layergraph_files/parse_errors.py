"""What is wrong with a file, and where in it."""

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
"""A place in a JSON text: the key or index in what is around it; None for the text itself."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands, in what was read, where the text held something that JSON should not hold.

    Attributes:
        message: what it was.
        remedy: what to do about it.
    """

    message: str
    remedy: str


class ParseError(Exception):
    """Something wrong at a spot. It never leaves this package: see :func:`reading`.

    Args:
        spot: where.
        message: what is wrong.
        remedy: what to do about it.
    """

    def __init__(self, spot: JsonPath, message: str, remedy: str) -> None:
        super().__init__(message)
        self.spot = spot
        self.message = message
        self.remedy = remedy


@contextmanager
def reading(path: PathName, document: object = None) -> Iterator[None]:
    """Say in which file it was that something went wrong.

    Args:
        path: the file.
        document: what the file's JSON holds, to name in errors what spots lead to.

    Raises:
        FileError: for a fault, and for what the operating system refuses.
        InvalidIrError: for broken rules of an IR.
    """
    try:
        yield
    except ParseError as fault:
        where = "".join(f", {each}" for each in _told(fault.spot, document))
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
        remedy = "check the path, the rights and the room on the disk"
        raise FileError(f"{shown(path)}: {error.strerror or error}; {remedy}") from error


def shown(path: PathName) -> str:
    """A path for a message: as it is if it can be printed, else with its letters escaped."""
    text = fspath(path)
    return text if text.isprintable() else repr(text)


# Names and texts of a file are as long as the file wants them to be.
_LONGEST_NAME = 200
_LONGEST_MESSAGE = 1000


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _told(spot: JsonPath, document: Any) -> Iterator[str]:
    """The parts of a place, with the names of what has one: ``nodes[3] 'add'``."""
    keys: list[str | int] = []
    while spot is not None:
        spot, key = spot
        keys.append(key)
    said = ""
    for key in reversed(keys):
        if isinstance(key, int):
            said += f"[{key}]"
        else:
            if said:
                yield said
            short = _cut(key, _LONGEST_NAME)
            said = short if short.isidentifier() else repr(short)
        try:
            document = document[key]
        except (LookupError, TypeError):
            document = None
        name = document.get("name") if isinstance(document, dict) else None
        if isinstance(name, str):
            yield f"{said} {_cut(name, _LONGEST_NAME)!r}"
            said = ""
    if said:
        yield said


def kind_of(form: object) -> str:
    """What JSON calls it."""
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
    """What was read, if it is of the JSON type that belongs there.

    Raises:
        FaultError: it is not.
    """
    if type(form) is not kind:
        refuse_unreadable(form, spot)
        raise ParseError(spot, f"{kind_of(form)} where {kind_of(kind())} belongs", f"write {what}")
    return form


def refuse_unreadable(form: object, spot: JsonPath) -> None:
    """Raise for what stands where JSON held something it should not hold.

    Raises:
        FaultError: it does.
    """
    if type(form) is Unreadable:
        raise ParseError(spot, form.message, form.remedy)


def expect_fields(form: Any, spot: JsonPath, required: str, optional: str = "") -> dict[str, Any]:
    """An object that was read, if it has the fields that it must have and none that it may not.

    Args:
        form: what was read.
        spot: where.
        required: names, with blanks between them.
        optional: likewise.

    Raises:
        FaultError: it is no such object.
    """
    fields: dict[str, Any] = expect(form, dict, spot, "an object")
    needed, known = _names(required), _names(f"{required} {optional}")
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
def _names(text: str) -> dict[str, None]:
    return dict.fromkeys(text.split())
