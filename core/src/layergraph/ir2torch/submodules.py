"""Paths in a rebuilt model: finding the owner of a key, and registering submodules."""

from __future__ import annotations

from torch import nn

from layergraph.errors import BuildError, Place
from layergraph.ir import Ir


def owner_of(ir: Ir, key: str) -> tuple[str, str]:
    """Split a state-dict key into the name of its implementation and the rest of the key."""
    end = key.rfind(".")
    while end > 0:
        # A dot may be part of a name: split only where the IR has an implementation.
        if key[:end] in ir and key[:end] != ir.root:
            return key[:end], key[end + 1 :]
        end = key.rfind(".", 0, end)
    return ir.root, key


def place(parent: nn.Module, path: str, child: nn.Module, where: Place) -> None:
    """Register a module under a dotted path, with empty modules for missing parents.

    Raises:
        BuildError: the path is taken, or torch does not allow the name.
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
