"""Bounds on the size of a model in a file, in proportion to the file.

A few lines can describe a million modules: two names for each of twenty layers, one inside the
other. Whatever builds a model or lists its tensors goes along every path, so paths are counted
first.
"""

from __future__ import annotations

from collections.abc import Iterator

from layergraph.errors import FileError
from layergraph.ir import FUNCTION, Implementation, Ir
from layergraph.ir.submodules import post_order
from layergraph_files.allowed import may_call
from layergraph_files.limits import Limits
from layergraph_files.parse_errors import ParseError
from layergraph_files.values import MAX_NAME

# For each layer, child and tensor of the file, and besides.
_PATHS_EACH, _PATHS = 100, 10_000
_LETTERS_EACH, _LETTERS = 1000, 10_000_000


def check_bounds(ir: Ir) -> None:
    """Refuse a model with longer paths than a file may have, or that calls what no file may call.

    Args:
        ir: one that keeps the rules.

    Raises:
        FaultError: it has, or does.
    """
    for name, size in _sizes(ir) if _longest(ir) > MAX_NAME else ():
        if size.longest > MAX_NAME:
            message = f"a path in implementation {name!r} has more than {MAX_NAME} characters"
            raise ParseError(None, message, "nest modules less deeply, or give them shorter names")
    _check_functions(ir)


def _longest(ir: Ir) -> int:
    """No less than the length of the longest path: no path enters an implementation twice."""
    return sum([1 + max(map(len, each.children)) for each in ir.values() if each.children])


def check_paths(ir: Ir, limits: Limits) -> None:
    """Refuse a model that is much larger than what describes it.

    Args:
        ir: one that keeps the rules.
        limits: how much the file may make layergraph do.

    Raises:
        FileError: it is.
    """
    children = sum([len(each.children or ()) for each in ir.values()])
    tensors = sum([len(each.tensors) for each in ir.values()])
    said = len(ir) + children + tensors
    most = _PATHS + _PATHS_EACH * said if limits.modules is None else limits.modules
    letters = max(_LETTERS + _LETTERS_EACH * said, MAX_NAME * (limits.modules or 0))
    # Mostly each implementation is in one place, and no name is long: then no path need be counted.
    named = sum([sum(map(len, each.tensors)) for each in ir.values()])
    if children < len(ir) <= most and said * _longest(ir) + named <= letters:
        return
    for name, size in _sizes(ir):
        for what, count, bound in (
            ("modules", size.modules, most),
            ("characters of paths", size.letters, letters),
        ):
            if count > bound:
                raise FileError(
                    f"implementation {name!r} holds more than {bound} {what}, by their paths; "
                    "if you trust it, give Limits(modules=…)"
                )


def _sizes(ir: Ir) -> Iterator[tuple[str, _Size]]:
    sizes: dict[str, _Size] = {}
    for name in post_order(ir):
        sizes[name] = _Size(ir[name], sizes)
        yield name, sizes[name]


class _Size:
    """The size of an implementation, with all that is inside it.

    Attributes:
        modules: how many modules there are, by their paths.
        tensors: how many tensors the file says there are, likewise.
        letters: how many characters all of these paths have.
        longest: how many characters the longest path has.
    """

    def __init__(self, implementation: Implementation, inside: dict[str, _Size]) -> None:
        self.modules = 1
        self.tensors = len(implementation.tensors)
        self.letters = sum(map(len, implementation.tensors))
        self.longest = 0
        for child, target in (implementation.children or {}).items():
            size = inside[target]
            self.modules += size.modules
            self.tensors += size.tensors
            self.letters += size.letters + (size.modules + size.tensors) * (len(child) + 1)
            self.longest = max(self.longest, len(child) + 1 + size.longest)


def _check_functions(ir: Ir) -> None:
    """Refuse a model that calls what no file may call.

    Raises:
        FaultError: it does.
    """
    for each in ir.values():
        for graph in each.graphs:
            for node in graph.nodes.values():
                if node.type == FUNCTION and not may_call(node):
                    message = (
                        f"implementation {each.name!r}, node {node.name!r}: a file may not call "
                        f"{node.implementation!r}, which torch does not check as it checks others"
                    )
                    remedy = "call a function that torch documents, or have a plugin name it"
                    raise ParseError(None, message, remedy)


def check_writable(ir: Ir) -> None:
    """Refuse a model that could not be loaded from the file that it is about to be saved in.

    Raises:
        FaultError: it could not.
    """
    for each in ir.values():
        names = [each.name, *(each.children or ()), *each.tensors]
        for graph in each.graphs:
            names += graph.nodes
        if max(map(len, names)) > MAX_NAME:
            name = max(names, key=len)
            message = f"{name[:40]!r}… has {len(name)} characters, and no file holds such a name"
            raise ParseError(None, message, f"use up to {MAX_NAME} characters")
    check_bounds(ir)
