"""Changes that a model's code makes to objects while it runs."""

from __future__ import annotations

import dis
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any, Self

from torch import nn

from layergraph.errors import CaptureError, Unsupported
from layergraph.functions.foreign import applied_class
from layergraph.torch2ir.indexing.followed import PLAIN, own_attributes
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.indexing.reach import Reach
from layergraph.torch2ir.indexing.reached import Label, Listener, Reached
from layergraph.torch2ir.state.same_objects import are_one
from layergraph.torch2ir.state.snapshots import Dicts, Keeper, keeper_of
from layergraph.torch2ir.tracing.lines import line
from layergraph.torch2ir.tracing.stand_ins import settled
from layergraph.undo import undoing

_MODE = "training"


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a model's code to an object that outlives the call.

    Attributes:
        module: the module whose forward made the change, if known, and its path.
        reached: the changed object.
        name: the changed entry or attribute of the object.
        now: the state after the run.
        was: the state before the run.
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
        """Return whether the object is not an attribute of a module of the model."""
        return self.reached.code is not None

    @property
    def is_of_state_dict(self) -> bool:
        """Return whether the change gives the state dict of the model other tensors or keys."""
        members = vars(self.module)
        if not any(self.reached.state is members.get(each) for each in ("_parameters", "_buffers")):
            return False
        apart = members.get("_non_persistent_buffers_set", ())
        names = self.now.keys() | self.was.keys()
        return any(
            not are_one(self.now.get(each), self.was.get(each))
            for each in names
            if each not in apart
        )

    def carry(self) -> None:
        """Set the state to that after the run."""
        state, now = self.reached.state, self.now
        keeper = keeper_of(type(state))
        if keeper is None:
            return
        if isinstance(now, dict) and now.get(_MODE) is self.was.get(_MODE) is not None:
            # Keep the current mode: the next run may be in the other mode.
            now = now | {_MODE: state.get(_MODE)}
        keeper.write(state, now)

    def ahead(self, calls: int, number: int) -> Change | None:
        """Return the change with call counters advanced; None if it has no counter.

        Args:
            calls: the number of calls to advance by.
            number: the value of the counter after these calls.
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
        """Return the error that reports the change."""
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
    """Return the value from which a counter reaches ``number``; None if it is no counter."""
    is_number = type(now) is type(was) and type(now) in (int, float)
    if not is_number or now == was:
        return None
    kind: Any = type(now)
    return kind(number - calls * (now - was))  # type: ignore[operator, no-any-return]


def said_of(label: Label | None) -> str:
    """Return the place of an object as Python code spells it."""
    parts: list[str] = []
    while label is not None:
        label, name = label
        parts.append(str(name))
    return ".".join(reversed(parts))


def _line_of(codes: Sequence[CodeType | None], names: Sequence[str]) -> str:
    """Return the line that assigns one of the names, or else the line that mentions one."""
    found = [
        (each.opname.startswith(("STORE", "DELETE")), code, each.positions.lineno)
        for code in codes
        if code is not None and _may_name(code, names)
        for each in dis.get_instructions(code)
        if each.argval in names and each.positions is not None and each.positions.lineno
    ]
    for _, code, number in sorted(found, key=operator.itemgetter(0), reverse=True):
        return line(code.co_filename, number, code.co_name)
    first = codes[0]
    return "" if first is None else line(first.co_filename, first.co_firstlineno, first.co_name)


def _may_name(code: CodeType, names: Sequence[str]) -> bool:
    """Return whether an instruction may have one of the names: to decode all of them is slow."""
    named = (code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars, code.co_consts)
    return any(name in each for each in named for name in names)


class Unchanged(Listener):
    """Context manager that undoes the changes of the model's code to reached objects.

    Apply patches before entering it, so that they do not count as changes.

    Attributes:
        changes: the undone changes, after leaving.
    """

    def __init__(self, module_index: ModuleIndex) -> None:
        self._module_index = module_index
        self.changes: list[Change] = []
        self._before: list[tuple[Reached, Keeper, Any]] = []
        # The attributes and registries of the modules, and their saved copies.
        self._modules: tuple[Dicts, list[dict[Any, Any]]] = Dicts(()), []
        # The places of dicts among them, by ``id``; filled on demand.
        self._places: dict[int, list[int]] = {}
        self._placed = 0
        self._is_as_it_was = False
        self._undoing = undoing(self.undo)

    def __enter__(self) -> Self:
        self._undoing.__enter__()
        (reach,) = self._module_index.once(_followed)
        dicts = Dicts(self._module_index.once(_dicts))
        # One assignment, because an interrupt may come between two.
        self._modules = dicts, dicts.read()
        reach.listen(self)
        return self

    def reached(self, reached: Reached) -> None:
        """See :class:`reached.Listener`."""
        keeper = keeper_of(type(reached.state))
        if keeper is not None:
            self._before.append((reached, keeper, keeper.read(reached.state)))

    def patched(self, holder: Any, name: Any, new: Any) -> None:
        """Record a patch, so that it does not count as a change of the model's code."""
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
        """Accept the changes inside a ``with`` block that a process makes once, such as an import.

        These changes stay, as if they had happened before the run.
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
        """Return whether any object has changed so far."""
        dicts, held = self._modules
        return not dicts.are(held) or not all(
            _is_same(each.state, keeper, was) for each, keeper, was in self._before
        )

    def differing(self, among: Iterable[int] | None = None) -> Iterator[tuple[int, Any, Any]]:
        """Yield the place of each object that has changed so far, its state, and its old state.

        Args:
            among: places from an earlier call, to compare only these. None compares all reached
                objects, which takes longer.
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
        """Undo the changes, and return them."""
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
        """Undo the changes; a second call does nothing."""
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
                # A new tensor object with the same memory is not a change to report, but is undone.
                return []
            now = _as_known(now, was)
        elif isinstance(now, list) and are_one(now, was):
            return []
        module = self._module_index.at(reached.path).module
        return [Change(module, reached, name, now, was, self._module_index.reach.codes)]


def _rebased(was: Any, before: Any, now: Any) -> Any:
    """Return a state with the difference between two later states applied."""
    if not isinstance(now, dict):
        return now
    kept = {key: value for key, value in was.items() if key in now or key not in before}
    absent = object()
    return kept | {key: value for key, value in now.items() if before.get(key, absent) is not value}


def _is_same(state: Any, keeper: Keeper, was: Any) -> bool:
    # Compare a dict in place, without a copy: nearly all states are dicts.
    now = state if type(state) is dict else keeper.read(state)
    return keeper.is_same(now, was)


def _followed(module_index: ModuleIndex) -> Iterator[Reach]:
    """Yield the reach of a model; it starts with the objects that the modules hold."""
    reach = module_index.reach
    for each in module_index:
        members = vars(each.module)
        for name in _CALLED:
            for hook in members.get(name, {}).values():
                reach.add(hook, (None, name), None, None, each.path)
        for name, value in own_attributes(each.module, PLAIN):
            if not each.is_leaf or applied_class(value) is None:
                reach.add(value, (None, name), None, (members, name), each.path)
    reach.walk()
    yield reach


def _dicts(module_index: ModuleIndex) -> Iterator[dict[Any, Any]]:
    """Yield the attribute dicts and registries of each module."""
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
    # An unusual module, such as a scripted one, lacks some.
    held = map(members.get, _DICTS)
    return tuple([each if isinstance(each, dict) else {} for each in held])


# Registries and hooks.
_DICTS = tuple(name for name, value in vars(nn.Module()).items() if isinstance(value, dict))
_KINDS = frozenset({dict, OrderedDict})
_CALLED = ("_forward_hooks", "_forward_pre_hooks")
# Entries of these are attributes, too.
_REGISTERED = ("_parameters", "_buffers", "_modules")
_IN_MODULE = ("", *("" if each in _REGISTERED else each for each in _DICTS))
_get_registries: Callable[[dict[str, Any]], tuple[dict[Any, Any], ...]] = operator.itemgetter(
    *_DICTS
)


def _difference(now: dict[Any, Any], was: dict[Any, Any]) -> object:
    """Return the key of a dict whose value is another object than before; None if there is none."""
    for key in now.keys() | was.keys():
        is_one = key in now and key in was and are_one(now[key], was[key])
        # Python itself sets names of this form, such as ``__warningregistry__``.
        if not is_one and not (isinstance(key, str) and key.startswith("__")):
            return key
    return None


def _as_known(now: dict[Any, Any], was: dict[Any, Any]) -> dict[Any, Any]:
    """Return a dict with old objects in place of new ones that :func:`are_one` finds equal."""
    return {
        key: was[key] if key in was and are_one(value, was[key]) else value
        for key, value in now.items()
    }
