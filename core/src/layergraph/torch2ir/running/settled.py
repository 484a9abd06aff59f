"""Sizes whose capture is over: they are ints again, wherever they are kept."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import torch

from layergraph.torch2ir.running.environment import EnvironmentText
from layergraph.torch2ir.running.sizes import Text, Traced, plain


def settled(value: Any) -> Any:
    """A value, with plain numbers in the place of those that have an origin.

    What can be changed, is changed; what holds such numbers and cannot, is made again.
    """
    return _settled(value, {})


def _settled(value: Any, seen: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _PLAIN or isinstance(value, Traced):
        return plain(value)
    if kind is Text or kind is EnvironmentText:
        return "".join(value)
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = value
    if issubclass(kind, tuple | frozenset):
        seen[id(value)] = value = _made_again(value, kind, seen)
    elif issubclass(kind, dict):
        _settle_dict(value, seen)
    elif issubclass(kind, list | deque):
        base: Any = list if issubclass(kind, list) else deque
        for place, each in enumerate([*base.__iter__(value)]):
            base.__setitem__(value, place, _settled(each, seen))
    elif issubclass(kind, set):
        items = [_settled(each, seen) for each in set.__iter__(value)]
        set.clear(value)
        set.update(value, items)
    return value


def _made_again(value: Any, kind: Any, seen: dict[int, Any]) -> Any:
    base = tuple if issubclass(kind, tuple) else frozenset
    items = [*base.__iter__(value)]
    inside = [_settled(each, seen) for each in items]
    if all(one is other for one, other in zip(items, inside, strict=True)):
        return value
    if kind is torch.Size:
        return torch.Size(inside)
    made = base.__new__(kind, inside)
    vars(made).update(getattr(value, "__dict__", {})) if hasattr(made, "__dict__") else None
    return made


def _settle_dict(value: Any, seen: dict[int, Any]) -> None:
    base: Any = OrderedDict if isinstance(value, OrderedDict) else dict
    items = [(key, each) for key, each in base.items(value)]
    inside = [(_settled(key, seen), _settled(each, seen)) for key, each in items]
    if any(key is not old for (key, _), (old, _) in zip(inside, items, strict=True)):
        base.clear(value)
    for (key, each), (_, old) in zip(inside, items, strict=True):
        if each is not old or len(value) < len(items):
            base.__setitem__(value, key, each)


_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None), torch.Tensor})
