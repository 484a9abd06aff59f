"""JSON texts: a strict reader, and a writer with one line per node, so that diffs are small."""

from __future__ import annotations

import json
import math
from typing import Any, BinaryIO

from layergraph_files.limits import Limits
from layergraph_files.parse_errors import ParseError, Unreadable

# Python parses integers in quadratic time. Files write integers beyond 2**53 as hexadecimal text.
_MOST_DIGITS = 30

# The arrays that are written with one item per line.
_LISTS = frozenset({"implementations", "nodes", "edges", "tensors"})


def whole(file: BinaryIO, limits: Limits) -> bytes:
    """Read all of an open text file.

    Raises:
        ParseError: it is longer than the limit.
    """
    text = file.read(limits.text_bytes + 1)
    if len(text) > limits.text_bytes:
        remedy = "if you trust it, give Limits(text_bytes=…)"
        raise ParseError(None, f"it has more than {limits.text_bytes} bytes", remedy)
    return text


def parse(text: bytes) -> Any:
    """Parse a JSON text.

    For a repeated key, NaN, or a number that is too large, the result contains an
    :class:`~layergraph_files.parse_errors.Unreadable`.

    Raises:
        ParseError: the text is not JSON.
    """
    try:
        return json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except UnicodeDecodeError as error:
        raise ParseError(None, f"byte {error.start} is not UTF-8", "give it a JSON text") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ParseError(None, f"{place}: {error.msg}", "give it a JSON text") from None
    except RecursionError:
        raise ParseError(None, "it is nested too deeply", "nest it less deeply") from None


def compact(document: Any) -> str:
    """Return the shortest JSON text of a document, in ASCII."""
    return _to_compact_json(document)


def laid_out(document: dict[str, Any]) -> str:
    """Return a JSON text with a line for each node, edge and tensor, in ASCII."""
    return _laid_out(document, "") + "\n"


def _laid_out(form: dict[str, Any], indent: str) -> str:
    parts = []
    for name, value in form.items():
        head = f"{_to_json(name)}: "
        inner = f"{indent} "
        if name in _LISTS and value:
            lines = [f"{inner} {_laid_out(item, f'{inner} ')}" for item in value]
            parts.append("\n" + inner + head + "[\n" + ",\n".join(lines) + f"\n{inner}]")
        elif name == "evaluation":
            parts.append("\n" + inner + head + _laid_out(value, inner))
        else:
            parts.append(head + _to_json(value))
    return "{" + ", ".join(parts).replace(", \n", ",\n") + "}"


# json.dumps makes an encoder for each call.
_to_json = json.JSONEncoder(allow_nan=False).encode
_to_compact_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def _object(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return Unreadable(f"the key {twice!r} appears twice", "write each key once")


def _constant(text: str) -> Unreadable:
    return Unreadable(f"{text} is not JSON", f'write {{"float": "{_NAMES[text]}"}}')


_NAMES = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}


def _float(text: str) -> float | Unreadable:
    value = float(text)
    if math.isfinite(value):
        return value
    return Unreadable(f"{text[:40]} is too large", 'write {"float": "inf"} if that is meant')


def _int(text: str) -> int | Unreadable:
    if len(text) <= _MOST_DIGITS:
        return int(text)
    return Unreadable(f"{text[:40]}… is too large", 'write it as in {"int": "0xff"}')
