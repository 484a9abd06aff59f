"""The plain state of running code: what could let a later turn of a loop do something else."""

from __future__ import annotations

import itertools
import operator
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType, FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.tracing.stand_ins import StandIn


class PlainStates:
    """Compares the plain state of code at one moment with that at another.

    Args:
        module_index: the modules of the model, and with them the globals of its code.
    """

    def __init__(self, module_index: ModuleIndex) -> None:
        self._module_index = module_index
        self._outside: list[_Members] | None = None

    def of(self, frame: FrameType) -> str:
        """Return a text that is the same as long as nothing plain changes that code can ask for.

        Tensors and symbolic numbers do not count: a graph holds what is computed from them. Of a
        list of tensors, only its being empty counts, because code that asks for its length is seen.
        """
        if self._outside is None:
            modules = [vars(each.module) for each in self._module_index]
            self._outside = [_Members(each, of_module=True) for each in modules]
            self._outside += [_Members(each) for each in self._module_index.code_globals]
        inside, outside = _State(), _State()
        # A comprehension keeps its iterator under a name that code cannot spell.
        named = [(name, each) for name, each in frame.f_locals.items() if name.isidentifier()]
        known = [
            (number, each)
            for number, members in enumerate(self._outside)
            for each in members.state(outside)
        ]
        return repr(([(name, inside.of(value)) for name, value in named], known))


class _Members:
    """The attributes of a module, or the globals of code: what is plain in them.

    Args:
        members: them.
        of_module: whether they are those of a module.
    """

    def __init__(self, members: Mapping[str, Any], *, of_module: bool = False) -> None:
        self._members = members
        self._first = tuple(members.values())
        self._mutable = [
            name
            for name, value in members.items()
            if not (name in _OF_TORCH or name.startswith("__"))
            and (type(value) in _CONTAINERS or (of_module and _has_members(value)))
        ]

    def state(self, state: _State) -> Iterator[object]:
        """Yield the state of what can change, or has changed."""
        values = self._members.values()
        if len(values) != len(self._first) or not all(map(operator.is_, values, self._first)):
            first = iter(self._first)
            for name, value in self._members.items():
                if value is not next(first, None):
                    yield name, state.of(value)
        for name in self._mutable:
            yield name, state.of(self._members.get(name))


class _State:
    """The plain state of values, each of which is looked at once."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def of(self, value: Any) -> object:
        """Return the state of a value, with a text that is the same if the state is."""
        kind = type(value)
        if isinstance(value, torch.Tensor):
            return torch.Tensor
        if isinstance(value, StandIn):
            return StandIn
        if value is None or kind in _PLAIN:
            return value
        if isinstance(value, nn.Module | ModuleType | type) or id(value) in self._seen:
            return kind, id(value)
        if len(self._seen) > _MOST_OBJECTS:
            return _unlike_any()
        self._seen.add(id(value))
        if kind is list and holds_tensors(value):
            return list
        return kind, *self._inside(kind, value)

    def _inside(self, kind: type, value: Any) -> Iterable[object]:
        if kind in (*_CONTAINERS, tuple, frozenset, torch.Size) and kind is not dict:
            return map(self.of, value)
        if kind is dict:
            return [(self.of(key), self.of(each)) for key, each in value.items()]
        if kind is FunctionType:
            cells = [cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)]
            return id(value.__code__), *map(self.of, cells)
        if hasattr(kind, "__next__"):
            return (_unlike_any(),)
        if hasattr(kind, "tobytes"):
            # Arrays, of numpy and of Python.
            return (value.tobytes(),)
        members = [(name, self.of(each)) for name, each in _members_of(value)]
        return id(value), *members


_PLAIN = frozenset({bool, int, float, complex, str, bytes, torch.dtype, torch.device, slice})
_CONTAINERS = (list, dict, set, deque)
_MOST_OBJECTS = 1000
# The tensors and modules in them are seen otherwise, and hooks by whoever calls them.
_OF_TORCH = frozenset(vars(nn.Module()))
_numbers = itertools.count()


def holds_tensors(value: Any) -> bool:
    """Return whether a value is a tensor, or a list, tuple or dict that holds nothing else."""
    if isinstance(value, torch.Tensor):
        return True
    inside = value.values() if type(value) is dict else value
    return type(value) in (list, tuple, dict) and bool(value) and all(map(holds_tensors, inside))


def _has_members(value: object) -> bool:
    is_other = isinstance(value, torch.Tensor | nn.Module | type | StandIn)
    return not is_other and (hasattr(value, "__dict__") or hasattr(type(value), "__slots__"))


def _members_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of an object."""
    members = getattr(value, "__dict__", None)
    yield from members.items() if isinstance(members, dict) else ()
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name != "__dict__" and hasattr(value, name):
                yield name, getattr(value, name)


def _unlike_any() -> object:
    """Return a state that no other value has, at no other time."""
    return next(_numbers)


def _is_full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
