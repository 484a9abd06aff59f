"""The plain state of running code: what could let a later turn of a loop do something else."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from types import FrameType, FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

from layergraph.torch2ir.tracing.stand_ins import StandIn


def plain_state(frame: FrameType) -> str:
    """Return a text that is the same as long as nothing plain changes in the variables of code.

    Tensors and symbolic numbers do not count: a graph holds what is computed from them. Of a list
    of tensors, only its being empty counts, because code that asks for its length is seen.
    """
    state = _State()
    # A comprehension keeps its iterator under a name that code cannot spell.
    named = [(name, each) for name, each in frame.f_locals.items() if name.isidentifier()]
    return repr([(name, state.of(value)) for name, value in named])


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
        if kind is list and value and all(isinstance(each, torch.Tensor) for each in value):
            return list
        return kind, *self._inside(kind, value)

    def _inside(self, kind: type, value: Any) -> Iterable[object]:
        if kind in (list, tuple, set, frozenset, deque, torch.Size):
            return map(self.of, value)
        if kind is dict:
            return [(self.of(key), self.of(each)) for key, each in value.items()]
        if kind is FunctionType:
            cells = [cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)]
            return id(value.__code__), *map(self.of, cells)
        if hasattr(kind, "__next__"):
            return (_unlike_any(),)
        members = getattr(value, "__dict__", None)
        known = members.items() if isinstance(members, dict) else ()
        return id(value), *[(name, self.of(each)) for name, each in known]


_PLAIN = frozenset({bool, int, float, complex, str, bytes, torch.dtype, torch.device, slice})
_MOST_OBJECTS = 1000
_numbers = itertools.count()


def _unlike_any() -> object:
    """Return a state that no other value has, at no other time."""
    return next(_numbers)


def _is_full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
