"""The modules of a rebuilt model, in their places."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from layergraph.errors import BuildError, Place
from layergraph.ir import Ir


class Paths:
    """Where implementations are, seen from one another."""

    def __init__(self, ir: Ir) -> None:
        self._ir = ir
        self._parents: dict[str, list[tuple[str, str]]] = {}
        for name, implementation in ir.items():
            for child, target in (implementation.children or {}).items():
                self._parents.setdefault(target, []).append((name, child))

    def between(self, top: str, name: str) -> str | None:
        """The attribute path from one implementation's module to another's; None if there is none.

        Of several, the shortest.
        """
        if top == name:
            return ""
        seen = {name}
        level = [(name, "")]
        while level:
            above = []
            for below, path in level:
                for parent, child in self._parents.get(below, ()):
                    full = f"{child}.{path}" if path else child
                    if parent == top:
                        return full
                    if parent not in seen:
                        seen.add(parent)
                        above.append((parent, full))
            level = above
        return None

    def owner(self, key: str) -> tuple[str, str]:
        """The implementation that a state-dict key belongs to, and the rest of the key."""
        path, _, rest = key.rpartition(".")
        while path:
            if path in self._ir and path != self._ir.root:
                return path, rest
            path, _, last = path.rpartition(".")
            rest = f"{last}.{rest}"
        return self._ir.root, rest


def post_order(ir: Ir) -> Iterator[str]:
    """The implementations, children before their parents; each once."""
    seen = {ir.root}
    stack = [(ir.root, _children(ir, ir.root))]
    while stack:
        name, children = stack[-1]
        for child in children:
            if child not in seen:
                seen.add(child)
                stack.append((child, _children(ir, child)))
                break
        else:
            stack.pop()
            yield name


def pre_order(ir: Ir) -> Iterator[tuple[str, str | None]]:
    """The implementations and the first parent of each, in the order of a state dict."""
    seen = {ir.root}
    yield ir.root, None
    stack = [(ir.root, _children(ir, ir.root))]
    while stack:
        name, children = stack[-1]
        for child in children:
            if child not in seen:
                seen.add(child)
                yield child, name
                stack.append((child, _children(ir, child)))
                break
        else:
            stack.pop()


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
