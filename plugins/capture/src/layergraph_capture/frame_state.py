"""The plain state of running code: what could let a later turn of a loop do something else."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from types import (
    BuiltinMethodType,
    FrameType,
    FunctionType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any

import torch
from torch import nn

from layergraph.torch2ir.state.changes import Unchanged
from layergraph.torch2ir.tracing.stand_ins import StandIn


class PlainStates:
    """Compares the plain state of code at one moment with that at another.

    Args:
        outside: knows what the code has changed outside of its own variables.
    """

    def __init__(self, outside: Unchanged) -> None:
        self._outside = outside
        self._changing: dict[int, None] = {}

    def of(self, frame: FrameType, turn: int) -> str:
        """Return a text that is the same as long as nothing plain changes that code can ask for.

        Tensors and symbolic numbers do not count: a graph holds what is computed from them. Of a
        list of tensors, only its being empty counts, because code that asks for its length is seen.

        Args:
            frame: the frame of the code.
            turn: the number of the turn that begins. A search of all that the model reaches takes
                longer than many turns. So it is for turns 0, 1, 2, 4, 8 and so on; other turns see
                the objects that were found to change.
        """
        state = _State()
        # A comprehension keeps its iterator under a name that code cannot spell.
        named = [(name, each) for name, each in frame.f_locals.items() if name.isidentifier()]
        inside = [(name, state.of(value)) for name, value in named]
        # All at once: an object is known by its ``id`` as long as it is there.
        is_whole = turn & (turn - 1) == 0
        changed = list(self._outside.differing(None if is_whole else self._changing))
        self._changing |= dict.fromkeys(place for place, _, _ in changed)
        outside = [(place, *_different(now, was, state)) for place, now, was in changed]
        return repr((inside, outside))


def _different(now: Any, was: Any, state: _State) -> Iterator[object]:
    """Yield the state of what has changed in an object."""
    if not (isinstance(now, dict) and isinstance(was, dict)):
        yield state.of(now)
        return
    for name, value in now.items():
        if name not in was or value is not was[name]:
            yield state.of(name), state.of(value)
    yield [state.of(name) for name in was if name not in now]


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
        if kind in _CONTAINERS:
            return map(self.of, value)
        if kind is dict:
            return [(self.of(key), self.of(each)) for key, each in value.items()]
        if kind is FunctionType:
            cells = [cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)]
            given = value.__defaults__, value.__kwdefaults__
            return id(value.__code__), *map(self.of, (*cells, *given))
        if kind is functools.partial:
            return map(self.of, (value.func, value.args, value.keywords))
        if kind in _METHODS:
            return id(getattr(value, "__func__", None)), self.of(value.__self__)
        if hasattr(kind, "__next__"):
            return (_unlike_any(),)
        if hasattr(kind, "tobytes"):
            # Arrays, of numpy and of Python.
            return (value.tobytes(),)
        members = [(name, self.of(each)) for name, each in _members_of(value)]
        return id(value), *members


_PLAIN = frozenset({bool, int, float, complex, str, bytes, torch.dtype, torch.device, slice})
_CONTAINERS = frozenset({list, tuple, set, frozenset, deque, torch.Size})
_METHODS = frozenset({MethodType, BuiltinMethodType, MethodWrapperType})
_MOST_OBJECTS = 1000
_numbers = itertools.count()


def holds_tensors(value: Any) -> bool:
    """Return whether a value is a tensor, or a list, tuple or dict that holds nothing else."""
    if isinstance(value, torch.Tensor):
        return True
    inside = value.values() if type(value) is dict else value
    return type(value) in (list, tuple, dict) and bool(value) and all(map(holds_tensors, inside))


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
