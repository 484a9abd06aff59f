"""Replacement of sizes that outlive their capture by ints.

Capture restores the objects that the model's code changes. But a size may remain where capture does
not look: in slots, in a C object, in the cache of a library function. So we ask the garbage
collector for its referrers.
"""

from __future__ import annotations

import contextlib
import functools
import gc
from collections import deque
from types import CellType, MemberDescriptorType
from typing import Any

from layergraph.torch2ir.tracing.stand_ins import changed_inside
from layergraph_capture.symbolic.ended_sizes import take_ended
from layergraph_capture.symbolic.symbolic_int import plain

_ROUNDS = 5


def replace_kept_sizes() -> None:
    """Replace kept sizes by ints. This is fast if there are none, as nearly always.

    An immutable holder, such as a tuple, is rebuilt and replaced in its own referrers.
    """
    pending: list[Any] = list(take_ended())
    new = {id(each): plain(each) for each in pending}
    kept = [*pending]
    for _ in range(_ROUNDS):
        if not pending:
            return
        holders = gc.get_referrers(*pending)
        ours = {id(pending), id(kept), id(new)}
        pending = [each for each in holders if id(each) not in ours and _is_fixed(each)]
        for each in pending:
            new[id(each)] = _made(each, new)
        for each in holders:
            if id(each) not in ours and not _is_fixed(each):
                _change(each, new)
        kept += pending
        holders.clear()


def _is_fixed(holder: object) -> bool:
    return issubclass(type(holder), tuple | frozenset | slice)


def _made(holder: Any, new: dict[int, Any]) -> Any:
    change = functools.partial(_changed, new=new)
    if isinstance(holder, slice):
        return slice(*map(change, (holder.start, holder.stop, holder.step)))
    return changed_inside(holder, change)


def _changed(value: Any, new: dict[int, Any]) -> Any:
    return new.get(id(value), value)


def _change(holder: Any, new: dict[int, Any]) -> None:
    change = functools.partial(_changed, new=new)
    kind = type(holder)
    if issubclass(kind, dict):
        owner = _class_with(holder)
        if owner is None:
            changed_inside(holder, change)
            return
        # Set the attribute, because Python caches lookups in classes.
        for name, value in [*holder.items()]:
            if id(value) in new:
                type.__setattr__(owner, name, change(value))
    elif issubclass(kind, list | deque | set):
        changed_inside(holder, change)
    elif kind is functools._lru_cache_wrapper:
        holder.cache_clear()
    elif kind is functools.partial:
        function, args, kwargs, members = holder.__reduce__()[2]
        holder.__setstate__((function, change(args), kwargs, members))
    elif kind is CellType:
        holder.cell_contents = change(holder.cell_contents)
    elif not issubclass(kind, type):
        _change_members(holder, new)


def _class_with(members: dict[Any, Any]) -> type | None:
    """Return the class with this ``__dict__``; None if it belongs to no class."""
    if "__module__" not in members or "__doc__" not in members:
        return None
    return next((each for each in gc.get_referrers(members) if isinstance(each, type)), None)


def _change_members(holder: Any, new: dict[int, Any]) -> None:
    change = functools.partial(_changed, new=new)
    with contextlib.suppress(AttributeError):
        changed_inside(object.__getattribute__(holder, "__dict__"), change)
    if isinstance(holder, BaseException):
        holder.args = change(holder.args)
    for cls in type(holder).__mro__:
        for slot in vars(cls).values():
            if type(slot) is MemberDescriptorType:
                value = slot.__get__(holder) if hasattr(holder, slot.__name__) else None
                if id(value) in new:
                    slot.__set__(holder, change(value))
