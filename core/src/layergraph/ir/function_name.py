"""The names of functions that exist only in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self


class FunctionName(str):
    """The name of a function that no plugin lists, together with the function.

    Nodes hold it like any other name, so copies and edits of a graph keep it. In a file and in a
    pickle it is a plain string, which names a function only if an installed plugin lists it.

    Args:
        name: the name. One name never stands for two functions of a process.
        function: the function: a class of :class:`torch.autograd.Function`, or an operation of
            :data:`torch.ops`.

    Attributes:
        where: the line of code that calls it, for messages; empty if it is not known.
    """

    __slots__ = ("function", "where")

    function: Callable[..., Any]
    where: str

    def __new__(cls, name: str, function: Callable[..., Any]) -> Self:
        """Make the name."""
        self = super().__new__(cls, name)
        self.function = function
        self.where = ""
        return self

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # A class that a function defines has no name by which pickle could find it.
        return str, (str(self),)
