"""The tensors that a model reads but has not registered."""

from __future__ import annotations

import inspect
import sys
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.indexing.opaque import held_by_function, is_of, members_of

_DEEPEST = 4


class Constants:
    """The unregistered tensors that exist before the run.

    They are attributes of modules, globals, or defaults of functions. For any other tensor, capture
    sees the call that makes it, or refuses it.

    Args:
        module_index: the model.
    """

    def __init__(self, module_index: ModuleIndex) -> None:
        self._found: dict[int, torch.Tensor] = {}
        self._places: dict[int, str] = {}
        self._seen: set[int] = set()
        self._kept: list[Any] = []
        for module_info in module_index:
            if not module_info.is_leaf:
                # A scripted module has no Python function here.
                forward = inspect.getattr_static(type(module_info.module), "forward", None)
                self._search(forward, _DEEPEST, module_info.key("forward"))
                members = vars(module_info.module).items()
                for name, value in [each for each in members if type(each[1]) not in _PLAIN]:
                    if name not in _REGISTERED and not (type(value) in _EMPTY and not value):
                        self._search(value, _DEEPEST, module_info.key(name))

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self._found.values())

    def holds(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor is one of them."""
        return id(tensor) in self._found or _is_global(tensor)

    def place(self, tensor: torch.Tensor) -> str:
        """Return the attribute that holds a tensor; for a global, a general text."""
        return self._places.get(id(tensor), "a global tensor")

    def _search(self, value: Any, depth: int, place: str) -> None:
        if is_of(value, torch.Tensor):
            self._found[id(value)] = value
            self._places.setdefault(id(value), f"the attribute {place!r}")
        elif not depth or is_of(value, _WITHOUT_TENSORS) or id(value) in self._seen:
            return
        else:
            self._seen.add(id(value))
            self._kept.append(value)
            for each in _inside(value):
                self._search(each, depth - 1, place)


_ITERABLES = (list, tuple, set, frozenset)
_REGISTERED = frozenset({"_parameters", "_buffers", "_modules"})
# Nearly all attributes of modules have one of these types.
_PLAIN = frozenset({bool, int, float, str, type(None)})
_EMPTY = frozenset({dict, OrderedDict, list, tuple, set})
_WITHOUT_TENSORS = (bool, int, float, complex, str, bytes, type(None), type, nn.Module, torch.dtype)


def _inside(value: Any) -> list[Any]:
    if is_of(value, dict):
        return list(dict.values(value))
    # The class may override ``__len__`` and ``__iter__``.
    kind: Any = next((kind for kind in _ITERABLES if is_of(value, kind)), None)
    if kind is not None:
        return list(kind.__iter__(value))
    return [*held_by_function(value), *(members_of(value) or {}).values()]


def _is_global(tensor: torch.Tensor) -> bool:
    for module in list(sys.modules.values()):
        members = getattr(module, "__dict__", None)
        if isinstance(members, dict) and any(_leads_to(tensor, each) for each in _known(members)):
            return True
    return False


def _known(members: dict[str, Any]) -> Iterator[Any]:
    """Yield the globals of a Python module, and the members of its classes."""
    for each in list(members.values()):
        yield each
        if type(each) is type:
            yield from list(vars(each).values())


def _leads_to(tensor: torch.Tensor, value: object) -> bool:
    return value is tensor or any(each is tensor for each in held_by_function(value))
