"""Names of classes and of variables, from those of modules."""

from __future__ import annotations

import re

_IRREGULAR = {"branches": "branch", "classes": "class", "matrices": "matrix"}


def singular(name: str) -> str:
    """Return the singular of a plural name."""
    if name in _IRREGULAR:
        return _IRREGULAR[name]
    is_plural = name.endswith("s") and not name.endswith("ss") and len(name) > 2
    return name[:-1] if is_plural else name


def camel(name: str) -> str:
    """Return a class name for the name of a module."""
    words = [word for word in re.split(r"[^0-9A-Za-z]+", name) if word]
    return "".join(word[0].upper() + word[1:] for word in words) or "Block"
