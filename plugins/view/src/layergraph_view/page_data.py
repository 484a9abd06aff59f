"""The data of the page: the document as JSON, compressed, in base64.

Base64 contains no character with a meaning in HTML, so no text of a model can break out of its
element.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import fields, is_dataclass
from typing import Any

from layergraph_view.document import Document


def encoded(made: Document) -> str:
    """Return the data for a document; the same text for equal documents."""
    text = json.dumps(made, default=_fields, separators=(",", ":"), ensure_ascii=True)
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def _fields(value: Any) -> Any:
    """Return an object as a dict of its nonempty fields."""
    if not is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"a {type(value).__name__} is no part of a document")
    empty: tuple[Any, ...] = (None,) if isinstance(value, Document) else (None, "", [])
    found = {each.name: getattr(value, each.name) for each in fields(value)}
    return {name: each for name, each in found.items() if each not in empty}
