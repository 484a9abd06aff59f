"""Snapshots of Python objects that keep state: read, compared and restored."""

from __future__ import annotations

import copy
import ctypes
import functools
import io
import operator
import pickle
import random
import sys
import threading
import types
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from itertools import compress, count
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import _disable_current_modes

from layergraph.torch2ir.state.same_objects import are_all_the_same
from layergraph.torch2ir.tracing.patches import put

Read = Callable[[Any], Any]


class Keeper(NamedTuple):
    """The functions that handle one kind of state.

    Attributes:
        read: returns a copy of the state.
        write: restores a state.
        is_same: returns whether two states are equal.
    """

    read: Read
    write: Callable[[Any, Any], None]
    is_same: Callable[[Any, Any], bool]


def keeper_of(kind: type) -> Keeper | None:
    """Return the keeper for objects of a type; None if such objects have no state."""
    return _keeper_of(kind)


@functools.lru_cache(maxsize=4096)
def _keeper_of(kind: type) -> Keeper | None:
    known = _KEEPERS.get(kind)
    if known is not None or kind is object:
        return known
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, numpy.random.Generator):
        return _NUMPY_GENERATOR
    if numpy is not None and issubclass(kind, numpy.random.RandomState):
        return _NUMPY_RANDOM_STATE
    if numpy is not None and issubclass(kind, numpy.ndarray):
        return _NUMPY_ARRAY
    for base, keeper in _KEEPERS.items():
        if issubclass(kind, base):
            return keeper
    return None


def is_iterator(kind: type) -> bool:
    """Return whether a type is a built-in iterator type, or that of generators."""
    return hasattr(kind, "__next__") and kind.__module__ in ("builtins", "itertools")


class Spot:
    """The place of an iterator. Restoring replaces the iterator by a copy, as it cannot be rewound.

    Args:
        place: the dict or object that holds it, and the name; None if an immutable object holds it.
        iterator: the iterator.
    """

    def __init__(self, place: tuple[Any, Any] | None, iterator: Any) -> None:
        self._place = place
        self._iterator = iterator

    def read(self) -> tuple[Any, Any]:
        """Return the position and a copy of the iterator, or itself if it cannot be copied."""
        position = _position(self._iterator)
        try:
            return position, copy.copy(self._iterator)
        except TypeError:
            return position, self._iterator

    def write(self, state: tuple[Any, Any]) -> None:
        """Put an iterator with the old position in the place."""
        made: Any = state[1].__reduce__() if hasattr(state[1], "__setstate__") else ()
        if len(made) > 2:
            # Iterators of lists can be rewound.
            self._iterator.__setstate__(made[2])
        elif self._place is not None and state[1] is not self._iterator:
            self._iterator = copy.copy(state[1])
            put(*self._place, self._iterator)


class Slots:
    """The attributes of an object whose class has ``__slots__``."""

    def __init__(self, owner: Any, members: dict[str, Any]) -> None:
        self._owner = owner
        self._members = members

    def read(self) -> dict[str, Any]:
        """Return the values of the slots."""
        found: dict[str, Any] = {}
        for name, member in self._members.items():
            with suppress(AttributeError):
                found[name] = member.__get__(self._owner)
        return found

    def write(self, state: dict[str, Any]) -> None:
        """Set the values of the slots."""
        for name in self.read().keys() - state.keys():
            self._members[name].__delete__(self._owner)
        for name, value in state.items():
            self._members[name].__set__(self._owner, value)


def slots_of(value: Any) -> Slots | None:
    """Return the slots of an object; None if it has none."""
    kind: Any = type(value)
    members = _slots(kind)
    return Slots(value, members) if members else None


@functools.lru_cache(maxsize=4096)
def _slots(kind: type) -> dict[str, Any]:
    return {
        f"{base.__name__}.{name}" if name.startswith("__") else name: member
        for base in reversed(kind.__mro__)
        if "__slots__" in vars(base)
        for name, member in vars(base).items()
        if type(member) is types.MemberDescriptorType
    }


class Dicts:
    """Many dicts, read and compared at once, because nearly always none has changed."""

    def __init__(self, dicts: Sequence[dict[Any, Any]]) -> None:
        self.dicts = dicts

    @functools.cached_property
    def places(self) -> dict[int, int]:
        """Return the index of each nonempty dict, by ``id``."""
        filled = map(id, filter(None, self.dicts))
        return dict(zip(filled, compress(count(), self.dicts), strict=True))

    def read(self) -> list[dict[Any, Any]]:
        """Return a copy of each; do not change the copies, because all empty ones are one dict."""
        empty: dict[Any, Any] = {}
        return [each.copy() if each else empty for each in self.dicts]

    def are(self, state: list[dict[Any, Any]]) -> bool:
        """Return whether each dict holds the same objects as before, in the same order."""
        if [*map(len, self.dicts)] != [*map(len, state)]:
            return False
        # Nearly all are empty.
        return are_all_the_same([*filter(None, self.dicts)], [*filter(None, state)])


# --- what holds objects: equal if it holds the very same ones ---


def hold_the_same(one: Any, other: Any) -> bool:
    """Return whether two dicts, or two sequences, hold the same objects in the same order."""
    if not one or len(one) != len(other) or not all(map(operator.is_, one, other)):
        return len(one) == len(other) == 0
    return not isinstance(one, dict) or all(map(operator.is_, one.values(), other.values()))


def _have_the_same(one: Any, other: Any) -> bool:
    """Return whether two sets hold the same objects."""
    return {*map(id, one)} == {*map(id, other)}


def _read_ordered(value: OrderedDict[Any, Any]) -> dict[Any, Any]:
    return dict(OrderedDict.items(value))


def _write_dict(value: dict[Any, Any], state: dict[Any, Any]) -> None:
    # A subclass may override ``__setitem__``.
    kind: Any = OrderedDict if isinstance(value, OrderedDict) else dict
    kind.clear(value)
    for key, each in state.items():
        kind.__setitem__(value, key, each)


def _write_list(value: list[Any], state: list[Any]) -> None:
    list.__setitem__(value, slice(None), state)


def _write_set(value: set[Any], state: set[Any]) -> None:
    set.clear(value)
    set.update(value, state)


def _write_deque(value: deque[Any], state: list[Any]) -> None:
    deque.clear(value)
    deque.extend(value, state)


def _write_local(value: Any, state: dict[str, Any]) -> None:
    _write_dict(vars(value), state)


def _read_cell(value: types.CellType) -> tuple[Any, ...]:
    try:
        return (value.cell_contents,)
    except ValueError:  # the cell is still empty
        return ()


def _write_cell(value: types.CellType, state: tuple[Any, ...]) -> None:
    if state:
        value.cell_contents = state[0]
    elif _read_cell(value):
        del value.cell_contents


def _read_class(value: type) -> dict[str, Any]:
    return dict(vars(value))


def _write_class(value: type, state: dict[str, Any]) -> None:
    now = _read_class(value)
    for key in now.keys() - state.keys():
        type.__delattr__(value, key)
    for key, member in state.items():
        if now.get(key, now) is not member:
            type.__setattr__(value, key, member)


# --- what counts, draws, or moves on: equal if it says the same ---


def _position(value: Any) -> Any:
    """Return the position of an iterator or a generator, in a form to compare."""
    if isinstance(value, types.GeneratorType):
        frame = value.gi_frame
        return None if frame is None else (frame.f_lasti, _made_from(frame.f_locals))
    try:
        return _made_from(value.__reduce__())
    except TypeError:
        # Since Python 3.14, iterators of itertools show their position only in their repr.
        return repr(value)


def _made_from(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: _made_from(each) for key, each in part.items()}
    if isinstance(part, tuple):
        return tuple([_made_from(each) for each in part])
    if isinstance(part, bool | int | float | str):
        return part
    return _position(part) if is_iterator(type(part)) else id(part)


def _read_context(value: ContextVar[Any]) -> tuple[Any, ...]:
    absent = object()
    now = value.get(absent)
    return () if now is absent else (now,)


def _write_context(value: ContextVar[Any], state: tuple[Any, ...]) -> None:
    if state:
        value.set(state[0])


def _read_numpy_generator(value: Any) -> bytes:
    return pickle.dumps(value.bit_generator.state)


def _write_numpy_generator(value: Any, state: bytes) -> None:
    value.bit_generator.state = pickle.loads(state)  # noqa: S301 - it was made above


def _read_generator(value: torch.Generator) -> bytes:
    # The state is a tensor; without this, modes would see its methods.
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        return bytes(value.get_state().tolist())


def _write_generator(value: torch.Generator, state: bytes) -> None:
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        value.set_state(torch.tensor([*state], dtype=torch.uint8))


def _write_all(value: Any, state: Any) -> None:
    value[...] = state


def _write_slice(value: Any, state: Any) -> None:
    value[:] = state


def _same_array(one: Any, other: Any) -> bool:
    return bool(one.shape == other.shape and one.tobytes() == other.tobytes())


def _read_memory(value: Any) -> bytes:
    try:
        return memoryview(value).tobytes()
    except ValueError:  # it is released
        return b""


def _write_memory(value: Any, state: bytes) -> None:
    view = memoryview(value)
    if not view.readonly:
        view.cast("B")[:] = state


def _read_buffer(value: Any) -> tuple[int, Any]:
    return (0, None) if value.closed else (value.tell(), value.getvalue())


def _write_buffer(value: Any, state: tuple[int, Any]) -> None:
    place, contents = state
    if contents is not None and not value.closed:
        value.seek(0)
        value.truncate()
        value.write(contents)
        value.seek(place)


_CTYPES: type = ctypes.Structure.__mro__[1]  # the base of all objects of ctypes
_KEEPERS: dict[type, Keeper] = {
    Slots: Keeper(Slots.read, Slots.write, hold_the_same),
    torch.Generator: Keeper(_read_generator, _write_generator, operator.eq),
    Spot: Keeper(Spot.read, Spot.write, lambda one, other: one[0] == other[0]),
    # Before dict, its base class.
    OrderedDict: Keeper(_read_ordered, _write_dict, hold_the_same),
    dict: Keeper(dict.copy, _write_dict, hold_the_same),
    list: Keeper(list.copy, _write_list, hold_the_same),
    set: Keeper(set.copy, _write_set, _have_the_same),
    deque: Keeper(list, _write_deque, hold_the_same),
    types.CellType: Keeper(_read_cell, _write_cell, hold_the_same),
    type: Keeper(_read_class, _write_class, hold_the_same),
    bytearray: Keeper(bytes, _write_slice, operator.eq),
    array: Keeper(copy.copy, _write_slice, operator.eq),
    random.Random: Keeper(random.Random.getstate, random.Random.setstate, operator.eq),
    threading.local: Keeper(lambda value: dict(vars(value)), _write_local, hold_the_same),
    ContextVar: Keeper(_read_context, _write_context, hold_the_same),
    memoryview: Keeper(_read_memory, _write_memory, operator.eq),
    _CTYPES: Keeper(_read_memory, _write_memory, operator.eq),
    io.BytesIO: Keeper(_read_buffer, _write_buffer, operator.eq),
    io.StringIO: Keeper(_read_buffer, _write_buffer, operator.eq),
}
_NUMPY_GENERATOR = Keeper(_read_numpy_generator, _write_numpy_generator, operator.eq)
_NUMPY_RANDOM_STATE = Keeper(
    lambda value: pickle.dumps(value.get_state()),
    lambda value, state: value.set_state(pickle.loads(state)),  # noqa: S301 - it was made above
    operator.eq,
)
_NUMPY_ARRAY = Keeper(operator.methodcaller("copy"), _write_all, _same_array)
