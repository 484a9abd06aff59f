"""The version of the format, and migrations from older ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layergraph_files.parse_errors import JsonPath, ParseError, expect

FORMAT = "layergraph"
VERSION = 1

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""By version: a function that turns a document of this version into one of the next version."""


def current(document: Any) -> dict[str, Any]:
    """Return a document in the current version of the format.

    Args:
        document: the parsed JSON, perhaps of an older version.

    Raises:
        ParseError: it is not a document of layergraph, or it has a newer version.
    """
    fields: dict[str, Any] = expect(document, dict, None, "a document of layergraph")
    if fields.get("format") != FORMAT:
        raise ParseError(None, "it is no model of layergraph", f'its "format" has to be "{FORMAT}"')
    spot: JsonPath = (None, "version")
    version = expect(fields.get("version"), int, spot, "the version of the format")
    if version > VERSION:
        remedy = f"this layergraph reads up to {VERSION}: update it (pip install -U layergraph)"
        raise ParseError(spot, f"the file is of version {version}", remedy)
    for number in range(version, VERSION):
        if number not in MIGRATIONS:
            break
        fields = MIGRATIONS[number](fields)
    else:
        if version >= 1:
            return {**fields, "version": VERSION}
    raise ParseError(spot, f"there is no version {version}", f"the current one is {VERSION}")
