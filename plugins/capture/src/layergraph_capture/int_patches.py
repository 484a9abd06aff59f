"""``int`` in the globals of code that runs: what it makes of a size keeps its origin.

Python gives the caller of ``int`` a plain number, whatever the argument says. So another class
stands in the globals for it. Code could tell the two apart, as by ``type(x) is int``. So it stands
only in modules whose source calls ``int``, gives it to ``isinstance``, or names it in annotations.
"""

from __future__ import annotations

import ast
import functools
import linecache
import re
from collections.abc import Callable, Iterator
from typing import Any

from layergraph.torch2ir.tracing.patches import Patch
from layergraph_capture.symbolic_int import SizeListener, SymbolicFloat, SymbolicInt, symbolic


class IntPatches:
    """Replaces ``int`` in the globals of code that runs.

    Args:
        listener: gets to know what becomes of sizes.
    """

    def __init__(self, listener: SizeListener) -> None:
        self._listener = listener
        self._int = _IntType("int", (), {"made_by": self._int_of})

    def of(self, scope: dict[str, Any]) -> Iterator[Patch]:
        """The patch of the globals of a module."""
        file = scope.get("__file__")
        if type(file) is str and "int" not in scope and _is_only_called(file):
            yield scope, "int", self._int

    def _int_of(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and self._listener.is_recording():
            number = args[0]
            if type(number) is SymbolicInt:
                return number
            if type(number) is SymbolicFloat:
                return symbolic(int(number.value), ("math.trunc", number), self._listener)
        return int(*args, **kwargs)


class _IntType(type):
    """The type of what stands in for ``int``."""

    made_by: Callable[..., Any]

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.made_by(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, int)


@functools.lru_cache(maxsize=4096)
def _is_only_called(file: str) -> bool:
    """Return whether code calls ``int``, and does nothing by which it could tell another one."""
    text = "".join(linecache.getlines(file))
    if re.search(r"\bint\(", text) is None:
        return False
    try:
        nodes = [*ast.walk(ast.parse(text))]
    except (SyntaxError, ValueError, RecursionError):
        return False
    harmless = {id(name) for node in nodes for name in _harmless(node)}
    named = (node for node in nodes if isinstance(node, ast.Name) and node.id == "int")
    return all(id(name) in harmless for name in named)


def _harmless(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the names in a node, if ``int`` is the same as what stands for it there."""
    match node:
        case ast.Call(func=ast.Name(id="isinstance"), args=[_, kinds]):
            yield from ast.walk(kinds)
        case ast.Call(func=ast.Name() as function):
            yield function
        case ast.arg(annotation=ast.expr() as said) | ast.AnnAssign(annotation=said):
            yield from ast.walk(said)
        case ast.FunctionDef(returns=ast.expr() as said):
            yield from ast.walk(said)
