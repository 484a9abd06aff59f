"""The modules of a rebuilt model, in their places."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from layergraph.errors import BuildError, Place
from layergraph.ir import Ir


def owner_of(ir: Ir, key: str) -> tuple[str, str]:
    """The implementation that a state-dict key belongs to, and the rest of the key."""
    path, _, rest = key.rpartition(".")
    while path:
        if path in ir and path != ir.root:
            return path, rest
        path, _, last = path.rpartition(".")
        rest = f"{last}.{rest}"
    return ir.root, rest


def post_order(ir: Ir) -> Iterator[str]:
    """The implementations, children before their parents; each once."""
    return (name for name, _, begins in _walk(ir) if not begins)


def pre_order(ir: Ir) -> Iterator[tuple[str, str | None]]:
    """The implementations and the first parent of each, in the order of a state dict."""
    return ((name, parent) for name, parent, begins in _walk(ir) if begins)


def _walk(ir: Ir) -> Iterator[tuple[str, str | None, bool]]:
    """Each implementation, under its first parent, as it begins and as it ends."""
    seen = {ir.root}
    stack: list[tuple[str, str | None, Iterator[str]]] = [(ir.root, None, _children(ir, ir.root))]
    yield ir.root, None, True
    while stack:
        name, parent, children = stack[-1]
        child = next((each for each in children if each not in seen), None)
        if child is None:
            stack.pop()
            yield name, parent, False
        else:
            seen.add(child)
            stack.append((child, name, _children(ir, child)))
            yield child, name, True


def _children(ir: Ir, name: str) -> Iterator[str]:
    return iter((ir[name].children or {}).values())


def place(parent: nn.Module, path: str, child: nn.Module, where: Place) -> None:
    """Register a module under a dotted path, with plain modules on the way.

    Raises:
        BuildError: the path is taken, or no name for a module.
    """
    *way, last = path.split(".")
    for name in way:
        inner = parent._modules.get(name)
        if inner is None:
            inner = nn.Module()
            _register(parent, name, inner, where)
        parent = inner
    _register(parent, last, child, where)


def _register(parent: nn.Module, name: str, child: nn.Module, where: Place) -> None:
    try:
        parent.add_module(name, child)
    except (KeyError, TypeError) as error:
        raise BuildError(f"{where}: it cannot have a child {name!r}: {error}") from None
