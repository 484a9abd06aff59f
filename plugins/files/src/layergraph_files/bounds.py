"""Bounds on the size of a model in a file, in proportion to the file.

A few lines can describe a million modules: twenty nested layers, each with two names for its child.
Building a model, or listing its tensors, takes time for each path, so we first count the paths.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from layergraph.errors import FileError
from layergraph.ir import FUNCTION, Implementation, Ir
from layergraph.ir.submodules import post_order
from layergraph_files.allowed import may_call
from layergraph_files.limits import Limits
from layergraph_files.parse_errors import ParseError
from layergraph_files.values import MAX_NAME

# The bounds: a constant, and more for each layer, child and tensor of the file.
_PATHS_EACH, _PATHS = 100, 10_000
_LETTERS_EACH, _LETTERS = 1000, 10_000_000


def check_bounds(ir: Ir) -> None:
    """Raise if a path of a model is too long, or if a file may not call one of its functions.

    Args:
        ir: a checked IR.

    Raises:
        ParseError: one of the two is the case.
    """
    for name, size in _sizes(ir) if _longest(ir) > MAX_NAME else ():
        if size.longest > MAX_NAME:
            message = f"a path in implementation {name!r} has more than {MAX_NAME} characters"
            raise ParseError(None, message, "nest modules less deeply, or give them shorter names")
    _check_functions(ir)


def _longest(ir: Ir) -> int:
    """Return an upper bound of the longest path: no path visits an implementation twice."""
    return sum([1 + max(map(len, each.children)) for each in ir.values() if each.children])


def check_paths(ir: Ir, limits: Limits) -> None:
    """Raise if a model has many more modules than the file describes.

    Args:
        ir: a checked IR.
        limits: the limits for the file.

    Raises:
        FileError: the model has too many modules, or the paths of its tensors are too long.
    """
    children = sum([len(each.children or ()) for each in ir.values()])
    tensors = sum([len(_keys(each)) for each in ir.values()])
    described = len(ir) + children + tensors
    most = _PATHS + _PATHS_EACH * described if limits.modules is None else limits.modules
    letters = max(_LETTERS + _LETTERS_EACH * described, MAX_NAME * (limits.modules or 0))
    # The common case: each implementation has one parent, and names are short. Skip the count then.
    named = sum([sum(map(len, _keys(each))) for each in ir.values()])
    if children < len(ir) <= most and described * _longest(ir) + named <= letters:
        return
    for name, size in _sizes(ir):
        for what, count, bound in (
            ("modules", size.modules, most),
            ("characters of paths", size.letters, letters),
        ):
            if count > bound:
                raise FileError(
                    f"implementation {name!r} holds more than {bound} {what}, where each path to a "
                    "module counts; if you trust it, give Limits(modules=…)"
                )


def _sizes(ir: Ir) -> Iterator[tuple[str, _Size]]:
    sizes: dict[str, _Size] = {}
    for name in post_order(ir):
        sizes[name] = _Size(ir[name], sizes)
        yield name, sizes[name]


def _keys(implementation: Implementation) -> Collection[str]:
    """Return the keys of the tensors of an implementation, and of their parts."""
    parts = [
        f"{name}.{part}"
        for name, spec in implementation.tensors.items()
        if spec.packed is not None
        for part in spec.packed.parts
    ]
    return [*implementation.tensors, *parts] if parts else implementation.tensors


class _Size:
    """The size of an implementation with its submodules, which count once for each path.

    Attributes:
        modules: the number of modules, itself included.
        tensors: the number of tensors that the file describes.
        letters: the number of characters of all paths together.
        longest: the number of characters of the longest path.
    """

    def __init__(self, implementation: Implementation, inside: dict[str, _Size]) -> None:
        self.modules = 1
        keys = _keys(implementation)
        self.tensors = len(keys)
        self.letters = sum(map(len, keys))
        self.longest = 0
        for child, target in (implementation.children or {}).items():
            size = inside[target]
            self.modules += size.modules
            self.tensors += size.tensors
            self.letters += size.letters + (size.modules + size.tensors) * (len(child) + 1)
            self.longest = max(self.longest, len(child) + 1 + size.longest)


def _check_functions(ir: Ir) -> None:
    """Raise if a model calls a function that a file may not call.

    Raises:
        ParseError: a node calls such a function.
    """
    for each in ir.values():
        for graph in each.graphs:
            for node in graph.nodes.values():
                if node.type == FUNCTION and not may_call(node):
                    message = (
                        f"implementation {each.name!r}, node {node.name!r}: a file may not call "
                        f"{node.implementation!r}, whose arguments torch does not check"
                    )
                    remedy = "call a function that torch documents, or list it in a plugin"
                    raise ParseError(None, message, remedy)


def check_writable(ir: Ir) -> None:
    """Raise if the model could not be loaded again from the file.

    Raises:
        ParseError: a name is too long, or a file may not call one of the functions.
    """
    for each in ir.values():
        names = [each.name, *(each.children or ()), *_keys(each)]
        for graph in each.graphs:
            names += graph.nodes
        if max(map(len, names)) > MAX_NAME:
            name = max(names, key=len)
            message = f"the name {name[:40]!r}… has {len(name)} characters, too many for a file"
            raise ParseError(None, message, f"use up to {MAX_NAME} characters")
    check_bounds(ir)
