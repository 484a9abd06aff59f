"""Modules and tensors, by their paths in a module."""

from __future__ import annotations

from typing import Any

from torch import nn


def descend(module: nn.Module, way: list[str]) -> nn.Module | None:
    """Return the module at a list of child names; None if there is none."""
    for name in way:
        inner = module._modules.get(name)
        if inner is None:
            return None
        module = inner
    return module


def find_module(module: nn.Module, path: str) -> nn.Module | None:
    """Return the module at a path; for the empty path, the module itself."""
    return descend(module, path.split(".")) if path else module


def find(module: nn.Module, path: str) -> Any:
    """Return the child or tensor at a path, or the mode of the module at ``path.training``.

    The names may be ones that ``getattr`` does not find. None if there is no such name.
    """
    *way, last = path.split(".")
    owner = descend(module, way)
    if owner is None:
        return None
    for registered in (owner._modules, owner._parameters, owner._buffers):
        if registered.get(last) is not None:
            return registered[last]
    return owner.training if last == "training" else None
