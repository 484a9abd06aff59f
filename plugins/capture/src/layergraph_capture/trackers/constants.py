"""The tensors that a model reads but has not registered."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from layergraph.torch2ir.indexing.followed import is_followed, own_attributes
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.indexing.opaque import held_by_function, is_of, members_of

_DEEPEST = 4


class Constants:
    """The unregistered tensors that exist before the run.

    They are attributes of modules, globals, members of classes, or defaults of functions, or are in
    containers and objects there. For any other tensor, capture sees the call that makes it, or
    refuses it.

    Args:
        module_index: the model.
    """

    def __init__(self, module_index: ModuleIndex) -> None:
        self._of_model = _Search()
        # None before a model needs these searches, because they take long.
        self._globals: dict[int, torch.Tensor] | None = None
        self._inside_globals: _Search | None = None
        classes: set[type] = set()
        for module_info in module_index:
            if not module_info.is_leaf:
                cls = type(module_info.module)
                if cls not in classes:
                    classes.add(cls)
                    # A scripted module has no Python function here.
                    forward = inspect.getattr_static(cls, "forward", None)
                    self._of_model.enter(forward, module_info.key("forward"))
                held, members = own_attributes(module_info.module, _PLAIN), vars(module_info.module)
                if any(map(members.get, _HOOKS)):
                    held += [(name, members.get(name)) for name in _HOOKS]
                for name, value in held:
                    self._of_model.enter(value, module_info.key(name))

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self._of_model.found.values())

    def holds(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor is one of them."""
        if id(tensor) in self._of_model.found:
            return True
        if self._globals is None:
            self._globals = _global_tensors()
        if id(tensor) in self._globals:
            return True
        if self._inside_globals is None:
            self._inside_globals = _search_globals()
        return id(tensor) in self._inside_globals.found

    def place(self, tensor: torch.Tensor) -> str:
        """Return the attribute that holds a tensor; for a global, a general text."""
        place = self._of_model.places.get(id(tensor))
        return "a global tensor" if place is None else f"the attribute {place!r}"


class _Search:
    """A search for tensors in containers and objects.

    Attributes:
        found: the tensors, by ``id``.
        places: the place of each, by ``id``.
    """

    def __init__(self) -> None:
        self.found: dict[int, torch.Tensor] = {}
        self.places: dict[int, str] = {}
        self._seen: dict[int, Any] = {}

    def enter(self, value: Any, place: str, depth: int = _DEEPEST) -> None:
        """Search a value, which is at a place."""
        if is_of(value, torch.Tensor):
            self.found[id(value)] = value
            self.places.setdefault(id(value), place)
        elif depth and not is_of(value, _WITHOUT_TENSORS) and id(value) not in self._seen:
            self._seen[id(value)] = value
            for each in _inside(value):
                self.enter(each, place, depth - 1)


def _search_globals() -> _Search:
    """Search the globals of the Python modules that may be part of a model."""
    search = _Search()
    for module_name, module in list(sys.modules.items()):
        members = getattr(module, "__dict__", None)
        if isinstance(members, dict) and is_followed(module_name):
            for value in _known(members):
                search.enter(value, module_name)
    return search


_ITERABLES = (list, tuple, set, frozenset)
_HOOKS = [name for name in vars(nn.Module()) if name.endswith("_hooks")]
# Nearly all attributes of modules have one of these types.
_PLAIN: frozenset[type] = frozenset({bool, int, float, str, type(None)})
_WITHOUT_TENSORS = (bool, int, float, complex, str, bytes, type(None), type, nn.Module, torch.dtype)


def _inside(value: Any) -> list[Any]:
    if is_of(value, dict):
        return list(dict.values(value))
    # The class may override ``__len__`` and ``__iter__``.
    kind: Any = next((kind for kind in _ITERABLES if is_of(value, kind)), None)
    if kind is not None:
        return list(kind.__iter__(value))
    return [*held_by_function(value), *(members_of(value) or {}).values()]


def _global_tensors() -> dict[int, torch.Tensor]:
    """Return the tensors that are globals of Python modules, or that such functions hold."""
    found: dict[int, torch.Tensor] = {}
    for module in list(sys.modules.values()):
        members = getattr(module, "__dict__", None)
        if isinstance(members, dict):
            for value in _known(members):
                held = (value, *held_by_function(value))
                found |= {id(each): each for each in held if is_of(each, torch.Tensor)}
    return found


def _known(members: dict[str, Any]) -> Iterator[Any]:
    """Yield the globals of a Python module, and the members of its classes."""
    for each in list(members.values()):
        yield each
        if type(each) is type:
            yield from list(vars(each).values())
