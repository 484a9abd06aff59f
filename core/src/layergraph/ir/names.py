"""Names for nodes: readable, unique in their graph, and usable as names in Python code."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Iterable

_NOT_IN_IDENTIFIERS = re.compile(r"[^0-9a-zA-Z_]+")
_IN_PYTHON = frozenset({*keyword.kwlist, *dir(builtins), *dir(type(builtins))})


class Namer:
    """A source of unique names: the wanted name, with a number appended if it is taken.

    Keywords and builtins of Python count as taken, so that an input ``input`` becomes ``input_1``,
    as in a graph of torch.fx.

    Args:
        taken: names that are in use.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def name(self, wish: str) -> str:
        """Return an unused name like the wanted one, and mark it as taken."""
        base = wish
        if not (wish.isascii() and wish.isidentifier()):
            base = _NOT_IN_IDENTIFIERS.sub("_", wish) or "_"
            if base[0].isdigit():
                base = f"_{base}"
        name = base
        number = self._next.get(base, 0)
        while name in self._taken or name in _IN_PYTHON:
            number += 1
            name = f"{base}_{number}"
        self._next[base] = number
        self._taken.add(name)
        return name


def is_argument_name(name: str) -> bool:
    """Return whether a name can be a keyword argument in generated code."""
    if not name.isidentifier() or keyword.iskeyword(name) or name == "__debug__":
        return False
    # Python normalises names, so that two different names may be one.
    return name.isascii() or unicodedata.normalize("NFKC", name) == name


def is_attribute_path(path: str) -> bool:
    """Return whether torch.fx can write code that reads a path of attributes.

    torch.fx writes a name that is not an identifier as a string, and does not escape it.
    """
    return all(
        part and part.isprintable() and not keyword.iskeyword(part) and not set(part) & {'"', "\\"}
        for part in path.split(".")
    )
