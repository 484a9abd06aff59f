"""What a model's code does to the model while it runs."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from layergraph.errors import CaptureError, Unsupported
from layergraph.tensors import lie_alike
from layergraph.torch2ir.survey import Survey, Surveyed
from layergraph.torch2ir.undo import undoing


@dataclass(frozen=True, slots=True)
class Change:
    """Something that a model's code did to a module while it ran.

    Attributes:
        module: whose forward it was.
        holder: the attributes of the module, or a container among them.
        name: which attribute.
        now: what the holder held when the model had run.
    """

    module: Surveyed
    holder: Container
    name: str
    now: Container

    def refusal(self) -> CaptureError:
        """The error that says so."""
        path, cls = self.module.path, type(self.module.module)
        reason = (
            f"the forward of {path or 'the model'!r} assigns self.{self.name}: what a model keeps "
            "from one call to the next, a graph cannot hold; use a buffer and change it in place"
        )
        found = Unsupported(path, f"{cls.__module__}.{cls.__qualname__}", reason)
        return CaptureError(reason, [found])


Container: TypeAlias = dict[Any, Any] | list[Any] | set[Any]


@contextmanager
def unchanged(survey: Survey) -> Iterator[list[Change]]:
    """Put back what the model's code assigns to its modules.

    Yields:
        A list that afterwards holds what was assigned.
    """
    holders = survey.once(_holders)
    before = [_copied(holder) for _, _, holder in holders]
    classes = {cls: dict(vars(cls)) for cls in survey.once(_classes)}
    changes: list[Change] = []

    def put_back() -> None:
        for cls, members in classes.items():
            _put_back(cls, members)
        for (_, _, holder), was in zip(holders, before, strict=True):
            if not _holds_the_same(holder, was):
                # Another tensor of the same memory is no change, but nobody knows it the next time.
                fill(holder, was)

    with undoing(put_back):
        try:
            yield changes
        finally:
            for (module, place, holder), was in zip(holders, before, strict=True):
                if _holds_the_same(holder, was):
                    continue
                name = _difference(holder, was)
                if name is not None:
                    now = _as_known(holder, was)
                    changes.append(Change(module, holder, place or str(name), now))
            for cls, members in classes.items():
                _refuse_change(cls, members)


def _put_back(cls: type, members: dict[str, Any]) -> None:
    """Put back what was assigned to a class."""
    now = dict(vars(cls))
    for key in now.keys() - members.keys():
        delattr(cls, key)
    for key in [key for key, value in members.items() if now.get(key) is not value]:
        setattr(cls, key, members[key])


def _refuse_change(cls: type, members: dict[str, Any]) -> None:
    """Raise if something was assigned to a class."""
    name = _difference(dict(vars(cls)), members)
    if name is not None:
        raise CaptureError(
            f"the model assigns {cls.__qualname__}.{name}: what a class keeps from one call to the "
            "next, a graph cannot hold; use a buffer and change it in place"
        )


def _classes(survey: Survey) -> Iterator[type]:
    """The classes of the model's own code, with those that they are made from."""
    of_modules = dict.fromkeys(type(each.module) for each in survey if not each.is_leaf)
    for cls in dict.fromkeys(base for each in of_modules for base in each.__mro__):
        if not cls.__module__.startswith(("torch.", "builtins")):
            yield cls


_REGISTERED = ("_parameters", "_buffers", "_modules")
# Nearly all that modules hold is of these.
_PLAIN = frozenset({bool, int, float, str, tuple, type(None)})
_PLAIN_HOMES = frozenset({"builtins", "torch", "numpy"})
_OF_TORCH = frozenset(vars(nn.Module())) - set(_REGISTERED)


def _holders(survey: Survey) -> Iterator[tuple[Surveyed, str, Container]]:
    """Everything that holds attributes of modules, with the name of the attribute that it is."""
    seen: set[object] = set()
    for each in survey:
        members = vars(each.module)
        yield each, "", members
        own = [item for item in members.items() if item[0] not in _OF_TORCH]
        for name, value in own:
            if type(value) in _PLAIN:
                continue
            if isinstance(value, dict | list | set):
                yield each, "" if name in _REGISTERED else name, value
            elif type(value).__module__.split(".")[0] not in _PLAIN_HOMES:
                inside = getattr(value, "__dict__", None)
                if isinstance(inside, dict) and id(value) not in seen:
                    seen.add(id(value))
                    yield each, name, inside
    for scope in survey.code_globals:
        yield survey.root, "", scope
        for name, value in list(scope.items()):
            if type(value) in (dict, list, set) and not name.startswith("__"):
                yield survey.root, name, value


def _difference(now: Any, was: Any) -> object:
    """What in a container is another object than it was; None if nothing."""
    if isinstance(now, dict):
        if are_the_same(now, was):
            return None
        # Where Python notes which warnings it has shown.
        for key in (now.keys() | was.keys()) - {"__warningregistry__"}:
            if key not in now or key not in was or not are_one(now[key], was[key]):
                return key
    elif isinstance(now, list):
        if not are_one(_items(now), was):
            return "[…]"
    elif not _holds_the_same(now, was):
        return "{…}"
    return None


def are_one(one: Any, other: Any) -> bool:
    """Whether two are one object, or the same numbers in the same memory, or hold such."""
    if one is other or type(one) is not type(other):
        return one is other
    if isinstance(one, dict):
        return are_the_same(one, other) or (
            one.keys() == other.keys() and all(are_one(one[key], other[key]) for key in one)
        )
    if isinstance(one, list | tuple):
        mine, others = _items(one), _items(other)
        return len(mine) == len(others) and all(map(are_one, mine, others))
    return isinstance(one, torch.Tensor) and lie_alike(one, other)


def are_the_same(one: dict[Any, Any], other: dict[Any, Any]) -> bool:
    """Whether two dicts hold the same objects in the same order: nearly all do."""
    if not one or not other:
        return len(one) == len(other)
    return list(one) == list(other) and all(map(operator.is_, one.values(), other.values()))


def _as_known(now: Any, was: Any) -> Any:
    """A copy of a container, with the objects of before where it is one with them."""
    if not isinstance(now, dict):
        return _copied(now)
    return {
        key: was[key] if key in was and are_one(value, was[key]) else value
        for key, value in now.items()
    }


def _holds_the_same(now: Any, was: Any) -> bool:
    """Whether a container holds the same objects as a copy of it that was made before."""
    if isinstance(now, dict):
        return are_the_same(now, was)
    if isinstance(now, list):
        mine = _items(now)
        return len(mine) == len(was) and all(map(operator.is_, mine, was))
    return {*map(id, now)} == {*map(id, was)}


def fill(holder: Any, contents: Any) -> None:
    """Make a container hold what another one holds."""
    kind = _kind(holder)
    kind.clear(holder)
    if isinstance(holder, list):
        kind.extend(holder, contents)
    else:
        kind.update(holder, contents)


# A class that is derived from a container may give its methods another meaning, or forbid them.
# What such an object holds is seen by the methods of Python's own container.


def _kind(holder: Any) -> Any:
    cls = type(holder)
    if cls in _CONTAINERS:
        return cls
    return next(base for base in cls.__mro__ if base in _CONTAINERS)


_CONTAINERS = frozenset({dict, OrderedDict, list, set, tuple})


def _copied(holder: Container) -> Any:
    """What a container holds, in a plain one."""
    if type(holder) in _PLAIN_CONTAINERS:
        return holder.copy()
    kind = _kind(holder)
    if isinstance(holder, dict):
        return dict(kind.items(holder))
    return (list if isinstance(holder, list) else set)(kind.__iter__(holder))


_PLAIN_CONTAINERS = frozenset({dict, list, set})


def _items(holder: Any) -> list[Any]:
    return list(_kind(holder).__iter__(holder))
