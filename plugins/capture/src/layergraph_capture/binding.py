"""Copies of the arguments of a call, whose parts are values of the graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from layergraph.errors import CaptureError, first_line
from layergraph.functions.fields import attributes, is_attributed
from layergraph.ir import Value
from layergraph.literals import UnknownValueError, to_plain_literal
from layergraph.named import name_of_named
from layergraph.outputs import class_name
from layergraph.tensors.memory import PLAIN_CLASSES, copy_of, unsuitable
from layergraph.torch2ir.tracing.module_call import TracedValue
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.trackers.objects import GivenObject, Objects, is_named

LazyElement = Callable[[], TracedValue]
"""A function that returns an element of a value; the element becomes a node at the first call."""

Bind = Callable[[Any, TracedValue | LazyElement], None]
"""A function that binds a tensor, or a generator, to a traced value, or to an element of one."""

Size = Callable[[Any, TracedValue, int | None], Any]
"""A function that makes the symbolic number for an argument, or for an item of an object."""


class ItemTurns(Protocol):
    """Sees the items of lists and tuples among the arguments, over which code may loop."""

    def begin_item(self, index: int) -> None:
        """Record that what follows reads an item."""

    def argument(self, given: Any) -> Any:
        """Return the list or tuple for the code."""


@dataclass(slots=True)
class Given:
    """The arguments of a run, taken apart.

    Attributes:
        containers: the dicts and lists.
        objects: the objects, inner ones first.
        parts: each tensor, container and object of the caller, with its value in the graph.
        named: each member of an enumeration, function and class, with its value in the graph.
    """

    containers: list[Container] = field(default_factory=list)
    objects: list[GivenObject] = field(default_factory=list)
    parts: list[tuple[Any, TracedValue]] = field(default_factory=list)
    named: list[tuple[Any, TracedValue]] = field(default_factory=list)


def _like(container: Any, inside: dict[Any, Any]) -> Any:
    """Return a container of the same class with other items."""
    kind = type(container)
    if kind is dict:
        return inside
    # The constructor of a subclass may take other arguments.
    copied: Any
    if isinstance(container, dict):
        copied = copy.copy(container)
        for key, item in inside.items():
            copied[key] = item
        return copied
    if isinstance(container, list) and is_attributed(container):
        copied = copy.copy(container)
        copied[:] = inside.values()
        return copied
    return kind(*inside.values()) if hasattr(container, "_fields") else kind(inside.values())


@dataclass(frozen=True, slots=True)
class Container:
    """A dict or list among the arguments.

    Attributes:
        value: the copy for the model.
        before: the items of the copy before the run.
        attributes: the attributes of the copy before the run.
        part: its value in the graph.
    """

    value: Any
    before: list[tuple[Any, Any]]
    attributes: dict[str, Any]
    part: TracedValue

    def changes(self) -> Iterator[tuple[str, tuple[TracedValue, object, object]]]:
        """See :meth:`Arguments.changes`. All items from the first change on are set, in order."""
        now, held = _items(self.value), attributes(self.value)
        if [*held] != [*self.attributes] or any(
            value is not self.attributes[name] for name, value in held.items()
        ):
            raise CaptureError(
                f"the model sets an attribute of the {type(self.value).__name__} that it is given, "
                "which a graph cannot; give a dataclass, or set an item"
            )
        pairs = zip(now, self.before, strict=False)
        kept = next((n for n, pair in enumerate(pairs) if not _are_same(*pair)), None)
        kept = min(len(now), len(self.before)) if kept is None else kept
        if kept == len(now) == len(self.before):
            return
        if [key for key, _ in now] == [key for key, _ in self.before]:
            for pair, was in zip(now, self.before, strict=True):
                if pair[1] is not was[1]:
                    yield "operator.setitem", (self.part, *pair)
            return
        if isinstance(self.value, list):
            rest = [item for _, item in now[kept:]]
            yield "operator.setitem", (self.part, slice(kept, None), rest)
            return
        for key, _ in self.before[kept:]:
            yield "operator.delitem", (self.part, key, None)
        for key, item in now[kept:]:
            yield "operator.setitem", (self.part, key, item)


def _items(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items() if isinstance(value, dict) else enumerate(value))


def _are_same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    return one[0] == other[0] and one[1] is other[1]


def _copied(given: Any) -> Any:
    """Return a deep copy of plain dicts and lists."""
    kind = type(given)
    if kind is dict:
        return {key: _copied(each) for key, each in given.items()}
    return kind([_copied(each) for each in given]) if kind in (list, tuple) else given


class Binding:
    """Copies one argument and binds the tensors in it.

    Args:
        recorder: records the calls that read elements of the argument.
        bind: binds a tensor to its value.
        size: makes the symbolic numbers.
        name: the name of the argument.
        objects: the classes of objects that the argument may contain.
        given: receives the parts of the argument.
        turns: sees the items of lists and tuples; None if loops are not searched.

    Attributes:
        is_open: whether the graph reads elements of the argument.
    """

    def __init__(
        self,
        recorder: Recorder,
        bind: Bind,
        size: Size,
        name: str,
        objects: Objects,
        given: Given,
        turns: ItemTurns | None = None,
    ) -> None:
        self._recorder = recorder
        self._bind = bind
        self._size = size
        self._name = name
        self._objects = objects
        self._given = given
        self._turns = turns
        self.is_open = False

    def root(self, given: Any, value: TracedValue) -> Any:
        """Return a copy of the argument, with its tensors bound."""
        if isinstance(given, torch.Generator):
            self.is_open = True
            self._call("layergraph.assume_container", value, "Generator", None, self._name)
            copied = torch.Generator(given.device).set_state(given.get_state())
            self._bind(copied, value)
            return copied
        self.is_open = self._objects.is_open(given)
        if not self.is_open:
            return self._noted(given, _copied(given), value)
        if isinstance(given, torch.Tensor):
            return self._tensor(given, value)
        if self._objects.is_number(given):
            return self._numbered(given, value, f"the input {self._name!r}")
        return self._inside(given, value)

    def plain(self, given: Any) -> Value:
        """Return an argument without tensors as a literal.

        Raises:
            CaptureError: it is no literal.
        """
        try:
            return to_plain_literal(given)
        except UnknownValueError as error:
            raise CaptureError(
                f"the argument {self._name!r} holds {error}, which a graph cannot: give tensors "
                "(torch.from_numpy makes one of an array), numbers, strings, None, members of "
                "enumerations, functions and classes of a module, and tuples, lists, dicts and "
                "dataclasses of them"
            ) from None

    def _tensor(self, tensor: torch.Tensor, value: TracedValue) -> torch.Tensor:
        reason = unsuitable(tensor)
        if reason is None and type(tensor) not in PLAIN_CLASSES:
            reason = f"is a {type(tensor).__name__}; give a plain torch.Tensor"
        if reason is not None:
            raise CaptureError(f"a tensor in the argument {self._name!r} {reason}")
        copied = copy_of(tensor)
        self._bind(copied, value)
        self._given.parts.append((tensor, value))
        return copied

    def _numbered(self, given: float, part: TracedValue, where: str) -> Any:
        """Return a symbolic number, whose class is fixed."""
        self._call("layergraph.assume_container", part, type(given).__name__, None, where)
        return self._size(given, part, None)

    def _inside(self, given: Any, part: TracedValue, *, is_of_object: bool = False) -> Any:
        """Return a copy of an element of a container or an object."""
        if isinstance(given, torch.Tensor):
            self._call("layergraph.assume_tensor", part, self._name)
            return self._tensor(given, part)
        if self._objects.row(given) is not None:
            return self._object(given, part)
        where = f"a part of the input {self._name!r}"
        if is_named(given):
            said = class_name(given), name_of_named(given), where
            self._call("layergraph.assume_named", part, *said)
            self._given.named.append((given, part))
            return given
        if self._objects.is_number(given):
            return self._numbered(given, part, where)
        if not isinstance(given, tuple | list | dict):
            self._call("layergraph.assume", part, self.plain(given), where)
            return given
        self._expect_class(given, part, list(given) if isinstance(given, dict) else len(given))
        if is_of_object and type(given) is torch.Size:
            return tuple([self._size(number, part, n) for n, number in enumerate(given)])
        copies = self._copies(given, part, is_of_object=is_of_object)
        try:
            like = _like(given, copies)
        except Exception as error:
            raise CaptureError(
                f"the argument {self._name!r} holds a {type(given).__name__}, of which no copy can "
                f"be made: {type(error).__name__}: {first_line(error)}; give a plain one"
            ) from error
        if self._turns is not None:
            like = self._turns.argument(like)
        if is_attributed(given):
            more = self._inside(attributes(given), self._call("layergraph.attributes", part))
            vars(like).update(more)
        return self._noted(given, like, part)

    def _copies(self, given: Any, part: TracedValue, *, is_of_object: bool) -> dict[Any, Any]:
        """Return copies of the items of a container, by key or index."""
        copies: dict[Any, Any] = {}
        for key, item in given.items() if isinstance(given, dict) else enumerate(given):
            if self._turns is not None and not isinstance(given, dict):
                self._turns.begin_item(key)
            read = self._call("operator.getitem", part, key)
            copies[key] = self._inside(item, read, is_of_object=is_of_object)
        return copies

    def _object(self, given: Any, part: TracedValue) -> Any:
        """Return a copy of an object of another library."""
        row, parts = self._objects.row(given), self._objects.parts(given)
        if row is None:
            raise CaptureError(f"the argument {self._name!r} holds a {type(given).__name__}")
        is_sized = self._objects.is_made(given)
        has_items = is_sized and row.has_items and isinstance(given, Sized)
        length = len(given) if has_items else None
        self._expect_class(given, part, length)
        flat = self._call(self._objects.name(row.flatten), part)
        copied = self._objects.copy(given, self._inside(parts, flat, is_of_object=is_sized))
        self._given.objects.append(GivenObject(copied, self._objects.parts(copied), part))
        self._given.parts.append((given, part))
        return copied

    def _expect_class(self, given: Any, part: TracedValue, keys: Value) -> None:
        said = class_name(given), keys, f"the input {self._name!r}"
        self._call("layergraph.assume_container", part, *said)

    def _call(self, target: str, *args: Value) -> TracedValue:
        return self._recorder.call("function", target, args, {})

    def _noted(self, given: Any, copied: Any, part: TracedValue) -> Any:
        if isinstance(copied, dict | list):
            kept = Container(copied, _items(copied), attributes(copied), part)
            self._given.containers.append(kept)
            self._given.parts.append((given, part))
        return copied
