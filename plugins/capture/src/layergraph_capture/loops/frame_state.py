"""The plain state of running code: all values by which a later turn might branch."""

from __future__ import annotations

import functools
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import (
    BuiltinMethodType,
    FrameType,
    FunctionType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

import torch
from torch import nn

from layergraph.torch2ir.state.changes import Change, Unchanged
from layergraph.torch2ir.tracing.stand_ins import StandIn


class PlainStates:
    """Compares the plain states of code at the starts of turns.

    Args:
        outside: tracks changes of objects other than local variables.

    Attributes:
        keeps_lists: whether the code has stored new lists of tensors in such objects.
    """

    def __init__(self, outside: Unchanged) -> None:
        self._outside = outside
        self._changing: dict[int, None] = {}
        # By loop, the lengths of its lists of tensors when its latest turn began.
        self._lengths: dict[tuple[int, int], dict[int, int]] = {}
        self.keeps_lists = False

    def of(self, frame: FrameType, turn: int, left: int) -> str:
        """Return a text that changes if any plain value that the code can read changes.

        Tensors and symbolic numbers do not count, because the graph holds computations with them.
        Of a list of tensors, only its emptiness counts, because the tracer sees a read of its
        length. If it gets shorter from turn to turn, its length counts, because it will be empty,
        unless the turns use it up.

        Args:
            frame: the frame of the code.
            turn: the number of the turn that begins. A comparison of all reached objects is slow,
                so only turns 0, 1, 2, 4, 8 and so on make it. Other turns compare the objects that
                have changed before.
            left: the number of turns after it.
        """
        place = id(frame), frame.f_lasti
        state = _State(self._lengths.get(place, {}) if turn else {}, left)
        # A comprehension keeps its iterator in a variable whose name is no identifier.
        named = [(name, each) for name, each in frame.f_locals.items() if name.isidentifier()]
        inside = [(name, state.of(value)) for name, value in named]
        # In one pass, so that the objects stay alive and their ids stay unique.
        is_whole = turn & (turn - 1) == 0
        changed = list(self._outside.differing(None if is_whole else self._changing))
        self._changing |= dict.fromkeys(number for number, _, _ in changed)
        self.keeps_lists |= any(keeps_list(now, was) for _, now, was in changed)
        outside = [(number, *_different(now, was, state.of)) for number, now, was in changed]
        self._lengths[place] = state.lengths
        return repr((inside, outside))


def _different(now: Any, was: Any, form: Callable[[Any], object]) -> Iterator[object]:
    """Yield the form of each change in an object."""
    if not (isinstance(now, dict) and isinstance(was, dict)):
        yield form(now)
        return
    for name, value in now.items():
        if name not in was or value is not was[name]:
            yield form(name), form(value)
    yield [form(name) for name in was if name not in now]


class _State:
    """The plain state of values, each read once.

    Args:
        before: the lengths of lists of tensors one turn earlier, by the number of the object.
        left: the number of turns after this one.

    Attributes:
        lengths: the lengths now.
    """

    def __init__(self, before: Mapping[int, int], left: int) -> None:
        self._before = before
        self._left = left
        # By ``id``, the number of the object.
        self._seen: dict[int, int] = {}
        self.lengths: dict[int, int] = {}

    def of(self, value: Any) -> object:
        """Return the state of a value, whose text is equal for equal states."""
        kind = type(value)
        if isinstance(value, torch.Tensor):
            return torch.Tensor
        if isinstance(value, StandIn):
            is_plain_list = isinstance(value, list) and not holds_tensors(value.plain())
            return (StandIn, *map(self.of, value.plain())) if is_plain_list else StandIn
        if value is None or kind in _PLAIN:
            return value
        if isinstance(value, nn.Module | ModuleType | type):
            return kind, id(value)
        if id(value) in self._seen:
            return kind, self._seen[id(value)]
        if len(self._seen) > _MOST_OBJECTS:
            return _unlike_any()
        number = self._seen[id(value)] = len(self._seen)
        if kind is list and holds_tensors(value):
            length = self.lengths[number] = len(value)
            taken = self._before.get(number, 0) - length
            is_used_up = length == taken * (self._left + 1)
            return list if taken <= 0 or is_used_up else (list, length)
        return kind, *self._inside(kind, value)

    def _inside(self, kind: type, value: Any) -> Iterable[object]:
        if issubclass(kind, _CONTAINERS):
            held = [*map(self.of, _items_of(value))]
            return [*held, *((name, self.of(each)) for name, each in _members_of(value))]
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
        if type(kind.__repr__) is WrapperDescriptorType and kind.__repr__ is not object.__repr__:
            # Its text holds what a compiled class does not show otherwise, such as a bytearray.
            members.append(("", repr(value)))
        # Code makes a new one in each turn, and does not ask which one it is.
        return members if _is_by_value(kind) else (f"<at {id(value)}>", *members)


IDENTITY = re.compile(r"<at \d+>")
"""The form in which a state names the identity of an object that the code may have made."""

_PLAIN = frozenset({bool, int, float, complex, str, bytes, torch.dtype, torch.device, slice})
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_METHODS = frozenset({MethodType, BuiltinMethodType, MethodWrapperType})
_OPEN = (FunctionType, type, ModuleType)
_MOST_OBJECTS = 1000
_numbers = itertools.count()


def holds_tensors(value: Any) -> bool:
    """Return whether a value is a tensor, or a list, tuple or dict of only tensors."""
    if isinstance(value, torch.Tensor):
        return True
    inside = value.values() if type(value) is dict else value
    return type(value) in (list, tuple, dict) and bool(value) and all(map(holds_tensors, inside))


def keeps_list(now: Any, was: Any) -> bool:
    """Return whether a change adds a list of tensors."""
    if isinstance(now, dict) and isinstance(was, dict):
        parts = [(each, was.get(name)) for name, each in now.items()]
        return _is_new_list(now, was) or any(_is_new_list(*each) for each in parts)
    return _is_new_list(now, was)


def _is_new_list(now: Any, was: Any) -> bool:
    is_list = not isinstance(now, torch.Tensor) and holds_tensors(now)
    return is_list and (type(was) is not type(now) or len(was) != len(now))


def form_of_changes(changes: Iterable[Change]) -> str:
    """Return a text that is equal for changes that differ only in tensors.

    The text contains the dtypes and ranks of the tensors.
    """
    return repr(
        [
            (each.reached.path, each.reached.label, *_different(each.now, each.was, _form_of))
            for each in changes
        ]
    )


def _form_of(value: Any) -> object:
    kind = type(value)
    if isinstance(value, torch.Tensor):
        return kind, value.dtype, value.dim()
    if value is None or kind in _PLAIN:
        return value
    if kind is dict:
        return [(_form_of(key), _form_of(each)) for key, each in value.items()]
    return (kind, *map(_form_of, value)) if kind in (list, tuple) else _unlike_any()


def is_plain(value: Any) -> bool:
    """Return whether a value contains only plain values, and no tensor, module or function."""
    pending, seen = [value], set[int]()
    while pending:
        each = pending.pop()
        kind = type(each)
        if each is None or kind in _PLAIN or id(each) in seen:
            continue
        seen.add(id(each))
        if len(seen) > _MOST_OBJECTS or isinstance(each, nn.Module | torch.Tensor | StandIn):
            return False
        is_open = type(getattr(each, "__dict__", None)) is dict and not isinstance(each, _OPEN)
        if is_open or issubclass(kind, _CONTAINERS):
            pending += [*_items_of(each), *(member for _, member in _members_of(each))]
        else:
            return False
    return True


def _is_by_value(kind: type) -> bool:
    """Return whether objects of a class with equal fields are equal."""
    options = getattr(kind, "__dataclass_params__", None)
    return options is not None and bool(options.eq)


def _items_of(value: Any) -> Iterator[Any]:
    """Yield what a container holds, by the methods of its builtin base class."""
    for base in _CONTAINERS:
        if issubclass(type(value), base):
            yield from itertools.chain(*dict.items(value)) if base is dict else base.__iter__(value)


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
    """Return a state that equals no other state."""
    return next(_numbers)


def _is_full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
