"""The versions of the format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layergraph_files.parse_errors import JsonPath, ParseError, expect

FORMAT = "layergraph"
VERSION = 1

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""By version: what makes a document of the next version out of one of this version."""


def current(document: Any) -> dict[str, Any]:
    """A document in the current version of the format.

    Args:
        document: what was read; it may be of an older version.

    Raises:
        FaultError: it is no document of layergraph, or of a newer version.
    """
    said: dict[str, Any] = expect(document, dict, None, "a document of layergraph")
    if said.get("format") != FORMAT:
        raise ParseError(None, "it is no model of layergraph", f'its "format" has to be "{FORMAT}"')
    spot: JsonPath = (None, "version")
    version = expect(said.get("version"), int, spot, "the version of the format")
    if version > VERSION:
        remedy = f"this layergraph reads up to {VERSION}: update it (pip install -U layergraph)"
        raise ParseError(spot, f"the file is of version {version}", remedy)
    for number in range(version, VERSION):
        if number not in MIGRATIONS:
            break
        said = MIGRATIONS[number](said)
    else:
        if version >= 1:
            return {**said, "version": VERSION}
    raise ParseError(spot, f"there is no version {version}", f"the current one is {VERSION}")
