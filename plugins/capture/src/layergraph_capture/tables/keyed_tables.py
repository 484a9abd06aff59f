"""Dicts in which a model keeps tables by sizes, such as ``self.cache[x.shape[1]]``.

A dict asks a size for its hash, and so for its value: the graph would be for this size only. If the
code stores tables under sizes, capture runs the model again with a stand-in for the dict, which
compares the expressions of sizes. So the graph computes the tables in each call, for every size.
Later calls of the model, with its own dict, are the proof that this gives the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from layergraph.errors import CaptureError
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.indexing.reach import Reach
from layergraph.torch2ir.indexing.reached import Reached
from layergraph.torch2ir.state.changes import Change
from layergraph.torch2ir.tracing.module_call import Trace, TracedValue
from layergraph.torch2ir.tracing.patches import Patch
from layergraph_capture.symbolic.symbolic_int import SymbolicNumber, plain
from layergraph_capture.tables.followed import follow_from_sizes

_NO_TABLE = "what it keeps under sizes depends on more than sizes, or is used as a whole"
_ABSENT = object()
_PLAIN = (type(None), bool, int, float, str)
_DICTS = (dict, OrderedDict)


class KeyedTable:
    """A stand-in for a dict that compares the expressions of sizes in its keys.

    It has the methods with which code keeps tables. All others raise an error, and capture then
    keeps the guards.

    Args:
        held: the dict. Its own entries count for keys without sizes only.
    """

    __class__ = property(lambda self: type(self._held))

    def __init__(self, held: dict[Any, Any]) -> None:
        self._held = held
        self.begin()

    def begin(self) -> None:
        """Take the entries that the dict has before a run."""
        self._plain = dict(self._held)
        self._missed: list[Any] = []
        self.added: list[tuple[Any, Any]] = []

    @property
    def is_used(self) -> bool:
        """Return whether the code has asked for keys with sizes."""
        return bool(self._missed)

    @property
    def is_kept(self) -> bool:
        """Return whether the code has added an entry for each key with sizes that it missed."""
        return all(any(_agree(known, key) for known, _ in self.added) for key in self._missed)

    def _find(self, key: Any) -> tuple[int | None, Any]:
        """Return the index of an added entry, or None, and the value."""
        for place, (known, value) in enumerate(self.added):
            if _agree(known, key):
                return place, value
        if any(isinstance(each, SymbolicNumber) for each in _parts(key)):
            self._missed.append(key)
            return None, _ABSENT
        return None, self._plain.get(key, _ABSENT)

    def __contains__(self, key: object) -> bool:
        return self._find(key)[1] is not _ABSENT

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, or a default."""
        value = self._find(key)[1]
        return default if value is _ABSENT else value

    def __getitem__(self, key: Any) -> Any:
        value = self._find(key)[1]
        if value is _ABSENT:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        place = self._find(key)[0]
        if place is None:
            self.added.append((key, value))
        else:
            self.added[place] = self.added[place][0], value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key; add the default first if there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def move_to_end(self, key: Any, *_: Any, **__: Any) -> None:
        """Do nothing: which entry the code drops first does not matter in one run."""
        self[key]

    def clear(self) -> None:
        """Drop all entries."""
        self._plain.clear()
        self.added.clear()

    def __len__(self) -> int:
        return len(self._plain) + len(self.added)

    def _unknown(self, *_: object) -> Any:
        raise CaptureError(_NO_TABLE)

    __bool__ = __iter__ = __reduce_ex__ = _unknown
    __eq__ = __ne__ = __or__ = __ror__ = __ior__ = __delitem__ = _unknown
    __hash__ = None  # type: ignore[assignment]


def _agree(one: Any, other: Any) -> bool:
    """Return whether two keys are equal, and guard the comparisons of their sizes."""
    mine, theirs = [*_parts(one)], [*_parts(other)]
    if len(mine) != len(theirs):
        return False
    numbers = []
    for pair in zip(mine, theirs, strict=True):
        if any(isinstance(each, SymbolicNumber) for each in pair):
            numbers.append(pair)
        elif pair[0] != pair[1]:
            return False
    return all(_are_equal(*pair) for pair in numbers)


def _are_equal(left: Any, right: Any) -> bool:
    both = [each.key() if isinstance(each, SymbolicNumber) else each for each in (left, right)]
    if both[0] == both[1]:
        return True
    number = left if isinstance(left, SymbolicNumber) else right
    is_equal = bool(plain(left) == plain(right))
    number.listener.assume(("operator.eq", left, right), is_equal)
    return is_equal


def _parts(key: Any) -> Iterator[Any]:
    """Yield what two equal keys have in common, in order."""
    if isinstance(key, tuple):
        for each in key:
            yield from _parts(each)
        yield len(key)
    else:
        yield key


class KeyedTables:
    """The dicts of a model that are keyed by sizes, for all runs of a capture.

    Args:
        reach: the objects that the model's code reaches.

    Attributes:
        is_on: whether the runs have stand-ins for them.
        refusal: the error for those that a run fills, if later calls show that this matters.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self.is_on = False
        self._is_over = False
        self._found: dict[int, Reached] = {}
        self.refusal: CaptureError | None = None

    def note(self, changes: Iterable[Change]) -> None:
        """Record the dicts that have entries under numbers: new ones, or those of earlier calls.

        Args:
            changes: the changes of a run.
        """
        if self.is_on or self._is_over:
            return
        for each in changes:
            if type(each.reached.state) in _DICTS and _has_tables(each.now):
                self._found[id(each.reached.state)] = each.reached
                self.refusal = each.refusal()
        for reached in self._reach.found:
            if type(reached.state) in _DICTS and _has_tables(reached.state):
                self._found[id(reached.state)] = reached

    def begin(self) -> bool:
        """Use stand-ins from now on, if dicts were found; return whether this changes anything."""
        if self.is_on or self._is_over or not self._found:
            return False
        self.is_on = True
        return True

    def give_up(self) -> None:
        """Use no stand-ins any more."""
        self.is_on, self._is_over = False, True
        self._found.clear()

    def sizes(self) -> list[int]:
        """Return the numbers under which earlier calls have kept tables."""
        keys = [key for each in self._found.values() for key in each.state]
        return [*dict.fromkeys(number for key in keys for number in _numbers(key) if number > 0)]

    def of_run(self, module_index: ModuleIndex) -> TablesOfRun:
        """Return the stand-ins of one run."""
        found = self._found.values() if self.is_on else ()
        return TablesOfRun(module_index, [*found], self.refusal)


class TablesOfRun:
    """The stand-ins of one run.

    Args:
        module_index: the model.
        found: the dicts.
        refusal: the error for tables that a graph cannot compute.
    """

    def __init__(
        self, module_index: ModuleIndex, found: Sequence[Reached], refusal: CaptureError | None
    ) -> None:
        self._module_index = module_index
        self._tables = [(each, KeyedTable(each.state)) for each in found]
        self._refusal = refusal

    @property
    def are_used(self) -> bool:
        """Return whether the code has asked for keys with sizes."""
        return any(table.is_used for _, table in self._tables)

    def patches(self) -> Iterator[Patch]:
        """Yield the patches that put the stand-ins in place of the dicts."""
        for reached, table in self._tables:
            places = [reached.place] if reached.place else []
            for each in self._module_index:
                members = vars(each.module)
                places += [(members, name) for name in members if members[name] is reached.state]
            for holder, name in places:
                yield holder, name, table

    def begin(self) -> None:
        """Forget the entries of a run, before the code runs once more."""
        for _, table in self._tables:
            table.begin()

    def check(self, trace: Trace, value_of: Callable[[Any], TracedValue | None]) -> None:
        """Raise if the entries depend on more than sizes and tensors that are not trained.

        Args:
            trace: the record of the run.
            value_of: returns the value of a tensor; None if unknown.

        Raises:
            CaptureError: an entry does, or the code adds none.
        """
        trained = self._module_index.trained_keys() if self._tables else ()
        for _, table in self._tables:
            kept = [value_of(each) for _, value in table.added for each in _tensors(value)]
            known = [each for each in kept if each is not None]
            is_known = table.is_kept and len(known) == len(kept)
            if not is_known or not follow_from_sizes(trace, known, trained):
                raise self._refusal or CaptureError(_NO_TABLE)


def _has_tables(held: dict[Any, Any]) -> bool:
    """Return whether the last entry of a dict has a number in its key, and a tensor in its value.

    Another dict may be large, so only one entry is looked at.
    """
    if not held:
        return False
    key = next(reversed(held))
    return bool(_numbers(key)) and any(
        isinstance(each, torch.Tensor) for each in _tensors(held[key])
    )


def _numbers(key: Any) -> list[int]:
    """Return the ints in a key."""
    if isinstance(key, tuple):
        return [number for each in key for number in _numbers(each)]
    return [key] if type(key) is int else []


def _tensors(value: Any) -> Iterator[Any]:
    """Yield the tensors in a value, and everything that is no plain value."""
    if isinstance(value, dict):
        value = (*value.keys(), *value.values())
    if isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
    elif type(value) not in _PLAIN:
        yield value
