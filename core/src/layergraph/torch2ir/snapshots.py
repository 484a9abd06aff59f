"""What keeps state outside of torch, and how it is read and put back."""

from __future__ import annotations

import copy
import functools
import operator
import pickle
import random
import sys
import threading
import types
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from layergraph.torch2ir.patches import put

Read = Callable[[Any], Any]


class Keeper(NamedTuple):
    """How one kind of state is handled.

    Attributes:
        read: gives the state; it does not change when the object does.
        write: puts it back.
        is_same: whether two states are one.
    """

    read: Read
    write: Callable[[Any, Any], None]
    is_same: Callable[[Any, Any], bool]


def keeper_of(kind: type) -> Keeper | None:
    """How the state of objects of a type is handled; None if they have none of their own."""
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
    """Whether objects of a type are iterators of Python's own, generators among them."""
    return hasattr(kind, "__next__") and kind.__module__ in ("builtins", "itertools")


class Spot:
    """Where an iterator is kept: it cannot be set back, but a copy of it can be put there.

    Args:
        place: the dict or object that holds it, and the name; None if it is held by a tuple, say.
        iterator: the iterator.
    """

    def __init__(self, place: tuple[Any, Any] | None, iterator: Any) -> None:
        self._place = place
        self._iterator = iterator

    def read(self) -> tuple[Any, Any]:
        """How far the iterator is, and a copy of it; itself if it cannot be copied."""
        position = _position(self._iterator)
        try:
            return position, copy.copy(self._iterator)
        except TypeError:
            return position, self._iterator

    def write(self, state: tuple[Any, Any]) -> None:
        """Put an iterator there that is as far as it was."""
        made: Any = state[1].__reduce__() if hasattr(state[1], "__setstate__") else ()
        if len(made) > 2:
            # Those of lists can be set back.
            self._iterator.__setstate__(made[2])
        elif self._place is not None and state[1] is not self._iterator:
            self._iterator = copy.copy(state[1])
            put(*self._place, self._iterator)


# --- what holds objects: equal if it holds the very same ones ---


def hold_the_same(one: Any, other: Any) -> bool:
    """Whether two dicts, or two sequences, hold the same objects in the same order."""
    if not one or len(one) != len(other) or not all(map(operator.is_, one, other)):
        return len(one) == len(other) == 0
    return not isinstance(one, dict) or all(map(operator.is_, one.values(), other.values()))


def _have_the_same(one: Any, other: Any) -> bool:
    """Likewise, of two sets."""
    return {*map(id, one)} == {*map(id, other)}


def _read_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    if isinstance(value, OrderedDict):
        return dict(OrderedDict.items(value))
    return dict.copy(value)


def _write_dict(value: dict[Any, Any], state: dict[Any, Any]) -> None:
    # A subclass may do something else when an item is set.
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
    except ValueError:  # it is still empty
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
    """How far an iterator has got: what it would be made from, or where a generator stands."""
    if isinstance(value, types.GeneratorType):
        frame = value.gi_frame
        return None if frame is None else (frame.f_lasti, _made_from(frame.f_locals))
    try:
        return _made_from(value.__reduce__())
    except TypeError:
        # Those of itertools tell it only by their text from Python 3.14 on.
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


def _write_all(value: Any, state: Any) -> None:
    value[...] = state


def _write_slice(value: Any, state: Any) -> None:
    value[:] = state


def _same_array(one: Any, other: Any) -> bool:
    return bool(one.shape == other.shape and one.tobytes() == other.tobytes())


_KEEPERS: dict[type, Keeper] = {
    Spot: Keeper(Spot.read, Spot.write, lambda one, other: one[0] == other[0]),
    dict: Keeper(_read_dict, _write_dict, hold_the_same),
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
}
_NUMPY_GENERATOR = Keeper(_read_numpy_generator, _write_numpy_generator, operator.eq)
_NUMPY_RANDOM_STATE = Keeper(
    lambda value: pickle.dumps(value.get_state()),
    lambda value, state: value.set_state(pickle.loads(state)),  # noqa: S301 - likewise
    operator.eq,
)
_NUMPY_ARRAY = Keeper(operator.methodcaller("copy"), _write_all, _same_array)
