"""Stand-ins: objects that behave as numbers or texts, and let a capture watch their use."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import torch


class StandIn:
    """An object that stands for a number or a text during a capture."""

    def plain(self) -> Any:
        """Return the number or the text."""
        raise NotImplementedError


def settled(value: Any) -> Any:
    """Return a value with plain values in place of stand-ins.

    Mutable containers are changed in place, immutable ones are rebuilt.
    """
    return _settled(value, {})


def _settled(value: Any, seen: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, StandIn):
        return value.plain()
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = value
    seen[id(value)] = value = changed_inside(value, lambda each: _settled(each, seen))
    return value


def changed_inside(value: Any, change: Callable[[Any], Any]) -> Any:
    """Apply a function to each element; return a mutable container itself, else a new container."""
    kind = type(value)
    if issubclass(kind, tuple | frozenset):
        return _made_again(value, kind, change)
    if issubclass(kind, dict):
        _change_dict(value, change)
    elif issubclass(kind, list | deque):
        base: Any = list if issubclass(kind, list) else deque
        for place, each in enumerate([*base.__iter__(value)]):
            base.__setitem__(value, place, change(each))
    elif issubclass(kind, set):
        items = [change(each) for each in set.__iter__(value)]
        set.clear(value)
        set.update(value, items)
    return value


def _made_again(value: Any, kind: Any, change: Callable[[Any], Any]) -> Any:
    base = tuple if issubclass(kind, tuple) else frozenset
    items = [*base.__iter__(value)]
    inside = [change(each) for each in items]
    if all(one is other for one, other in zip(items, inside, strict=True)):
        return value
    if kind is torch.Size:
        return torch.Size(inside)
    made = base.__new__(kind, inside)
    vars(made).update(getattr(value, "__dict__", {})) if hasattr(made, "__dict__") else None
    return made


def _change_dict(value: Any, change: Callable[[Any], Any]) -> None:
    base: Any = OrderedDict if isinstance(value, OrderedDict) else dict
    items = [(key, each) for key, each in base.items(value)]
    inside = [(change(key), change(each)) for key, each in items]
    if any(key is not old for (key, _), (old, _) in zip(inside, items, strict=True)):
        base.clear(value)
    for (key, each), (_, old) in zip(inside, items, strict=True):
        if each is not old or len(value) < len(items):
            base.__setitem__(value, key, each)


_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None), torch.Tensor})
