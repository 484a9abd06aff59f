"""Changes that a model's code makes while it runs, in the model and outside of it."""

from __future__ import annotations

import dis
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any, Self

import torch
from torch import nn

from layergraph.errors import CaptureError, Unsupported
from layergraph.functions.foreign import applied_class
from layergraph.tensors.memory import lie_alike
from layergraph.torch2ir.indexing.followed import OF_TORCH, PLAIN
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.indexing.reach import Label, Place, Reach, Reached
from layergraph.torch2ir.state.snapshots import Dicts, Keeper, keeper_of
from layergraph.torch2ir.tracing.lines import line
from layergraph.torch2ir.tracing.stand_ins import settled
from layergraph.undo import undoing

_MODE = "training"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that a model's code did to what outlives the call.

    Attributes:
        module: whose forward it was, as far as that is known, and its path.
        reached: what keeps it.
        name: what in it.
        now: the state that it had when the model had run.
        was: the state that it had before.
        codes: the functions that have run.
    """

    module: nn.Module
    reached: Reached
    name: object
    now: Any
    was: Any
    codes: dict[int, CodeType]

    @property
    def is_outside(self) -> bool:
        """Return whether it is no attribute of a module of the model."""
        return self.reached.code is not None

    def carry(self) -> None:
        """Make the state what it was when the model had run."""
        state, now = self.reached.state, self.now
        keeper = keeper_of(type(state))
        if keeper is None:
            return
        if isinstance(now, dict) and now.get(_MODE) is self.was.get(_MODE) is not None:
            # The mode is no change. The run that gets the changes may be one in the other mode.
            now = now | {_MODE: state.get(_MODE)}
        keeper.write(state, now)

    def ahead(self, calls: int, number: int) -> Change | None:
        """The same change, with what counts calls far ahead; None if nothing does.

        Args:
            calls: how many calls there are until then.
            number: where it is then.
        """
        now, was = self.now, self.was
        if isinstance(now, dict) and isinstance(was, dict):
            counted = {key: _counted(now[key], was.get(key), calls, number) for key in now}
            state: Any = now | {key: each for key, each in counted.items() if each is not None}
        elif isinstance(now, list | tuple) and len(now) == len(was):
            counts = [_counted(*each, calls, number) for each in zip(now, was, strict=True)]
            state = type(now)(a if b is None else b for a, b in zip(now, counts, strict=True))
        else:
            return None
        return None if state == now else replace(self, now=state)

    def refusal(self) -> CaptureError:
        """The error that says so."""
        reached, cls = self.reached, type(self.module)
        said = said_of(reached.label)
        where = ""
        if self.is_outside:
            parts = [said, str(self.name)] if self.name is not None else [said]
            reason = f"the forward of the model changes {'.'.join(parts)}"
            where = _line_of(
                [reached.code, *self.codes.values()], [str(self.name), str(reached.label[1])]
            )
        else:
            reason = (
                f"the forward of {reached.path or 'the model'!r} assigns self.{said or self.name}"
            )
        reason += (
            ": what a model keeps from one call to the next, a graph cannot hold; use a buffer and "
            "change it in place; or, if later calls leave it as the first one did, call the model "
            "once, under torch.no_grad(), before you convert it"
        )
        found = Unsupported(reached.path, f"{cls.__module__}.{cls.__qualname__}", reason, where)
        return CaptureError(str(found), [found])


def _counted(now: object, was: object, calls: int, number: int) -> int | float | None:
    """Where a number is that was changed by a call; None if none was."""
    is_number = type(now) is type(was) and type(now) in (int, float)
    if not is_number or now == was:
        return None
    kind: Any = type(now)
    return kind(number - calls * (now - was))  # type: ignore[operator, no-any-return]


def said_of(label: Label | None) -> str:
    """The place of an object, as code would spell it."""
    parts: list[str] = []
    while label is not None:
        label, name = label
        parts.append(str(name))
    return ".".join(reversed(parts))


def _line_of(codes: Sequence[CodeType | None], names: Sequence[str]) -> str:
    """The line that assigns one of the names, or else that mentions it."""
    found = [
        (each.opname.startswith(("STORE", "DELETE")), code, each.positions.lineno)
        for code in codes
        if code is not None
        for each in dis.get_instructions(code)
        if each.argval in names and each.positions is not None and each.positions.lineno
    ]
    for _, code, number in sorted(found, key=operator.itemgetter(0), reverse=True):
        return line(code.co_filename, number, code.co_name)
    first = codes[0]
    return "" if first is None else line(first.co_filename, first.co_firstlineno, first.co_name)


class Unchanged:
    """Puts back what the model's code changes, of the model and of what is outside of it.

    What is replaced for a while, is replaced before.

    Attributes:
        changes: on leaving, what was changed.
    """

    def __init__(self, module_index: ModuleIndex) -> None:
        self._module_index = module_index
        self.changes: list[Change] = []
        self._before: list[tuple[Reached, Keeper, Any]] = []
        # What the modules hold, by themselves and in their registries.
        self._modules: tuple[Dicts, list[dict[Any, Any]]] = Dicts(()), []
        # Where each is among them, by ``id``, as far as that was asked for.
        self._places: dict[int, list[int]] = {}
        self._placed = 0
        self._is_as_it_was = False
        self._undoing = undoing(self.undo)

    def __enter__(self) -> Self:
        self._undoing.__enter__()
        (reach,) = self._module_index.once(_followed)
        dicts = Dicts(self._module_index.once(_dicts))
        # Both at once: an interrupt may come between two assignments.
        self._modules = dicts, dicts.read()
        reach.listen(self)
        return self

    def reached(self, reached: Reached) -> None:
        """See :class:`reach.Listener`."""
        keeper = keeper_of(type(reached.state))
        if keeper is not None:
            self._before.append((reached, keeper, keeper.read(reached.state)))

    def entered(self, members: dict[str, Any]) -> None:
        """See :class:`reach.Listener`."""

    def found_callable(self, place: Place, function: Any) -> None:
        """See :class:`reach.Listener`."""

    def patched(self, holder: Any, name: Any, new: Any) -> None:
        """Take note that something was replaced for a while, which is no change of the model's."""
        for place in range(self._placed, len(self._before)):
            self._places.setdefault(id(self._before[place][0].state), []).append(place)
        self._placed = len(self._before)
        dicts, held = self._modules
        if id(holder) in dicts.places:
            place = dicts.places[id(holder)]
            held[place] = {**held[place], name: new}
        for place in self._places.get(id(holder), ()):
            reached, keeper, was = self._before[place]
            if isinstance(was, list):
                state: Any = [*was[:name], new, *was[name + 1 :]]
            else:
                state = {**was, name: new} if isinstance(was, dict) else (new,)
            self._before[place] = reached, keeper, state

    @contextmanager
    def accepting(self) -> Iterator[None]:
        """While something happens that a process does once, such as an import.

        What it changes stays, as if it had happened before the model ran.
        """
        then = [keeper.read(reached.state) for reached, keeper, _ in self._before]
        dicts, held = self._modules
        held_then = dicts.read()
        try:
            yield
        finally:
            if not dicts.are(held_then):
                self._modules = dicts, list(map(_rebased, held, held_then, dicts.read()))
            for place, before in enumerate(then):
                reached, keeper, was = self._before[place]
                now = keeper.read(reached.state)
                if not keeper.is_same(now, before):
                    self._before[place] = reached, keeper, _rebased(was, before, now)

    def differs(self) -> bool:
        """Return whether anything is changed by now."""
        dicts, held = self._modules
        return not dicts.are(held) or not all(
            _is_same(each.state, keeper, was) for each, keeper, was in self._before
        )

    def differing(self, among: Iterable[int] | None = None) -> Iterator[tuple[int, Any, Any]]:
        """Yield the place of each object that is changed by now, its state, and that of before.

        Args:
            among: places that an earlier call gave: compare these only. None: compare all, which
                takes time for each object that the model reaches.
        """
        dicts, held = self._modules
        if among is None:
            of_modules = range(0) if dicts.are(held) else range(len(held))
            among = [*(~place for place in of_modules), *range(len(self._before))]
        for place in among:
            if place < 0:
                now, was = dicts.dicts[~place], held[~place]
                keeper = keeper_of(type(now))
            else:
                reached, keeper, was = self._before[place]
                now = reached.state
            if keeper is not None and not _is_same(now, keeper, was):
                yield place, keeper.read(now), was

    def put_back(self) -> list[Change]:
        """Put back what was changed; give that."""
        changes: list[Change] = []
        dicts, held = self._modules
        of_modules = () if dicts.are(held) else self._of_modules()
        for reached, keeper, was in (*of_modules, *self._before):
            if not _is_same(reached.state, keeper, was):
                changes += self._changed(reached, settled(keeper.read(reached.state)), was)
                keeper.write(reached.state, was)
        self._is_as_it_was = True
        return changes

    def _of_modules(self) -> Iterator[tuple[Reached, Keeper, Any]]:
        modules = list(self._module_index)
        dicts, held = self._modules
        for place, (each, was) in enumerate(zip(dicts.dicts, held, strict=True)):
            keeper = keeper_of(type(each))
            if keeper is not None:
                module, name = divmod(place, len(_IN_MODULE))
                label: Label = (None, _IN_MODULE[name])
                yield Reached(each, label, None, modules[module].path), keeper, was

    def undo(self) -> None:
        """Put back what was changed, unless that is done; doing it again does no harm."""
        if not self._is_as_it_was:
            self.changes += self.put_back()

    def __exit__(self, *_: object) -> None:
        self._module_index.reach.listeners.remove(self)
        self._undoing.__exit__(None, None, None)

    def _changed(self, reached: Reached, now: Any, was: Any) -> list[Change]:
        name: object = None
        if isinstance(now, dict):
            name = _difference(now, was)
            if name is None and list(now) == list(was):
                # Another tensor of the same memory is no change, but it is another object.
                return []
            now = _as_known(now, was)
        elif isinstance(now, list) and are_one(now, was):
            return []
        module = self._module_index.at(reached.path).module
        return [Change(module, reached, name, now, was, self._module_index.reach.codes)]


def _rebased(was: Any, before: Any, now: Any) -> Any:
    """A state with a change that was made to a later one."""
    if not isinstance(now, dict):
        return now
    kept = {key: value for key, value in was.items() if key in now or key not in before}
    absent = object()
    return kept | {key: value for key, value in now.items() if before.get(key, absent) is not value}


def _is_same(state: Any, keeper: Keeper, was: Any) -> bool:
    # A dict, as nearly all are, is compared where it is, without a copy.
    now = state if type(state) is dict else keeper.read(state)
    return keeper.is_same(now, was)


def _followed(module_index: ModuleIndex) -> Iterator[Reach]:
    """The objects that a model reaches; at first, those that its modules hold."""
    reach = module_index.reach
    for each in module_index:
        members = vars(each.module)
        for name in _CALLED:
            for hook in members.get(name, {}).values():
                reach.add(hook, (None, name), None, None, each.path)
        own = members.keys() - OF_TORCH
        for name in sorted([name for name in own if type(members[name]) not in PLAIN]):
            if not each.is_leaf or applied_class(members[name]) is None:
                reach.add(members[name], (None, name), None, (members, name), each.path)
    reach.walk()
    yield reach


def _dicts(module_index: ModuleIndex) -> Iterator[dict[Any, Any]]:
    """The dicts that each module has, by the names of _IN_MODULE."""
    for each in module_index:
        members = vars(each.module)
        yield members
        yield from _registries(members)


def _registries(members: dict[str, Any]) -> tuple[dict[Any, Any], ...]:
    found: tuple[Any, ...] = ()
    with suppress(KeyError):
        found = _get_registries(members)
    if found and _KINDS.issuperset(map(type, found)):
        return found
    # An odd module, such as a scripted one.
    held = map(members.get, _DICTS)
    return tuple([each if isinstance(each, dict) else {} for each in held])


# Registries, hooks, and what is noted of these.
_DICTS = tuple(name for name, value in vars(nn.Module()).items() if isinstance(value, dict))
_KINDS = frozenset({dict, OrderedDict})
_CALLED = ("_forward_hooks", "_forward_pre_hooks")
# What is registered is an attribute, too.
_REGISTERED = ("_parameters", "_buffers", "_modules")
_IN_MODULE = ("", *("" if each in _REGISTERED else each for each in _DICTS))
_get_registries: Callable[[dict[str, Any]], tuple[dict[Any, Any], ...]] = operator.itemgetter(
    *_DICTS
)


def _difference(now: dict[Any, Any], was: dict[Any, Any]) -> object:
    """The name of what in a dict is another object than it was; None if nothing."""
    for key in now.keys() | was.keys():
        is_one = key in now and key in was and are_one(now[key], was[key])
        # Names of this form are Python's own, of warnings that were given, say.
        if not is_one and not (isinstance(key, str) and key.startswith("__")):
            return key
    return None


def are_one(one: Any, other: Any) -> bool:
    """Return whether two are one object, or the same numbers in one memory, or hold such."""
    if one is other or type(one) is not type(other):
        return one is other
    if isinstance(one, dict):
        return are_the_same(one, other) or (
            one.keys() == other.keys() and all(are_one(one[key], other[key]) for key in one)
        )
    if isinstance(one, list | tuple):
        # The class may have another idea of its length, or none.
        kind: Any = list if isinstance(one, list) else tuple
        mine, others = [*kind.__iter__(one)], [*kind.__iter__(other)]
        return len(mine) == len(others) and all(map(are_one, mine, others))
    return isinstance(one, torch.Tensor) and lie_alike(one, other)


def are_the_same(one: dict[Any, Any], other: dict[Any, Any]) -> bool:
    """Return whether two dicts hold the same objects in the same order: nearly all do."""
    if not one or not other:
        return len(one) == len(other)
    return list(one) == list(other) and all(map(operator.is_, one.values(), other.values()))


def _as_known(now: dict[Any, Any], was: dict[Any, Any]) -> dict[Any, Any]:
    """A dict, with the objects of before where it is one with them."""
    return {
        key: was[key] if key in was and are_one(value, was[key]) else value
        for key, value in now.items()
    }


def fill(holder: dict[Any, Any], contents: dict[Any, Any]) -> None:
    """Make a dict hold what another one holds, in the same order."""
    dict.clear(holder)
    dict.update(holder, contents)
