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
    """Gives every wish a name of its own: the wish itself, else with a number behind it.

    Names that mean something else in Python count as taken, so that an input called ``input``
    becomes ``input_1``, as in a graph of torch.fx.

    Args:
        taken: names that others have given.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def name(self, wish: str) -> str:
        """A name like the wish that this namer has not given yet."""
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
    """Whether a call can give an argument by the name: it will stand in code that is run."""
    if not name.isidentifier() or keyword.iskeyword(name) or name == "__debug__":
        return False
    # Python reads a name in its normal form, so that two of them may be one.
    return name.isascii() or unicodedata.normalize("NFKC", name) == name


def is_attribute_path(path: str) -> bool:
    """Whether code of torch.fx can name what the path leads to.

    It writes names that are no identifiers as strings, but does not escape them.
    """
    return all(
        part and part.isprintable() and not keyword.iskeyword(part) and not set(part) & {'"', "\\"}
        for part in path.split(".")
    )
