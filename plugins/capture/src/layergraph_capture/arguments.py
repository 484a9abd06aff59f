"""The arguments of the call in which a model is captured."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from layergraph.capturing import Example
from layergraph.errors import CaptureError, first_line
from layergraph.ir import Value
from layergraph.ir.names import is_argument_name
from layergraph.literals import UnknownValueError, to_plain_literal
from layergraph.outputs import class_name
from layergraph.tensors.memory import PLAIN_CLASSES, copy_of, unsuitable
from layergraph.torch2ir.tracing.module_call import DeferredCall, Parameter, TracedValue
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.trackers.objects import GivenObject, Objects, holds_twice

LazyElement = Callable[[], TracedValue]
"""A function that returns an element of a value; the element becomes a node at the first call."""

NOT_GIVEN: tuple[Value, ...] = (...,)
"""The default of an argument that only some calls pass, by ``*args`` or ``**kwargs``.

Not None, because a call may pass None."""

Bind = Callable[[torch.Tensor, TracedValue | LazyElement], None]
"""A function that binds a tensor to a traced value, or to an element of one."""

Size = Callable[[Any, TracedValue, int], Any]
"""A function that makes the symbolic number for an item of an object."""


@dataclass(frozen=True, slots=True)
class _Argument:
    name: str
    value: Any
    by_name: bool
    is_given: bool
    default: tuple[Value, ...]
    only_by_name: bool = False


class Arguments:
    """The arguments of one call.

    The model gets copies, so the caller sees no in-place change, and a tensor that is passed twice
    counts as two.

    Args:
        model: the model.
        args: the positional arguments.
        kwargs: the keyword arguments.
        objects: the classes of objects that may be among the arguments.
        calls: all example calls, including this one. An argument that only some calls pass has a
            name in each.

    Attributes:
        device: the device of the first tensor; None if there is no tensor.
        shares: whether a dict, a list or a dataclass appears twice.
        given_objects: the objects among the arguments, as passed in the last run.

    Raises:
        CaptureError: the model does not take the arguments, or a graph cannot hold one.
    """

    def __init__(
        self,
        model: nn.Module,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        objects: Objects,
        calls: Iterable[Example] = (),
    ) -> None:
        if not isinstance(args, tuple | list):
            raise CaptureError(
                f"args is a {type(args).__name__}; give a tuple of the positional arguments"
            )
        if not isinstance(kwargs, Mapping):
            raise CaptureError(f"kwargs is a {type(kwargs).__name__}; give a dict of arguments")
        given = tuple(args), dict(kwargs)
        self._arguments = list(_arguments(model, *given, list(calls) or [given]))
        self._objects = objects
        values = list(objects.values_in([each.value for each in self._arguments]))
        tensors = (each for each in values if isinstance(each, torch.Tensor))
        self.device = next((each.device for each in tensors), None)
        self.shares = holds_twice(values)
        self.given_objects: list[GivenObject] = []
        self._containers: list[_Container] = []

    def bind(
        self, recorder: Recorder, bind: Bind, size: Size = lambda number, *_: number
    ) -> tuple[list[Any], dict[str, Any], list[Parameter]]:
        """Return copies of the positional and keyword arguments, and all parameters of the graph.

        Args:
            recorder: makes the traced values.
            bind: binds a tensor to its value.
            size: makes the symbolic numbers in objects.
        """
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        parameters: list[Parameter] = []
        self._containers.clear()
        self.given_objects.clear()
        for each in self._arguments:
            value = recorder.value(each.name)
            if not each.is_given:
                # The call leaves the argument at its default.
                default, only = each.default, each.only_by_name
                parameters.append(Parameter(each.name, value, default, default, only))
                continue
            noted = self._containers, self.given_objects
            binding = _Binding(recorder, bind, size, each.name, self._objects, *noted)
            copied = binding.root(each.value, value)
            fixed = () if binding.is_open else (binding.plain(each.value),)
            only = each.only_by_name
            parameters.append(Parameter(each.name, value, each.default, fixed, only))
            if each.by_name:
                kwargs[each.name] = copied
            else:
                args.append(copied)
        return args, kwargs, parameters

    def changes(self) -> Iterator[tuple[str, tuple[TracedValue, object, object]]]:
        """Yield the calls that repeat the model's changes of dicts and lists among the arguments.

        Yields:
            The name of a function, and its arguments: the container, a key, the new item.
        """
        for each in self._containers:
            yield from each.changes()


def _arguments(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], calls: Iterable[Example]
) -> Iterator[_Argument]:
    """Yield all arguments in the order of the signature, including those left at a default."""
    try:
        signature = inspect.signature(model.forward)
        bound = signature.bind(*args, **kwargs).arguments
        all_bound = [signature.bind(*(one or ()), **(more or {})).arguments for one, more in calls]
    except TypeError as error:
        raise CaptureError(
            f"the model does not take these arguments: {error}; give args and kwargs as in a call"
        ) from None
    default: tuple[Value, ...] = ()
    for name, parameter in signature.parameters.items():
        given = bound.get(name, {})
        if parameter.kind is parameter.VAR_POSITIONAL:
            lengths = [len(each.get(name, ())) for each in all_bound]
            for index in range(max(lengths)):
                is_given = index < len(given)
                value = given[index] if is_given else None
                own = NOT_GIVEN if index >= min(lengths) else ()
                default = default or own
                yield _Argument(f"{name}_{index}", value, False, is_given, own)
        elif parameter.kind is parameter.VAR_KEYWORD:
            named = [each.get(name, {}) for each in all_bound]
            for key in dict.fromkeys(key for each in named for key in each):
                if not is_argument_name(key):
                    raise CaptureError(
                        f"the argument {key!r} has a name that no parameter of Python can have; "
                        "give it another one, or give a dict with it"
                    )
                own = default and (None,)
                if not all(key in each for each in named):
                    own = default = NOT_GIVEN
                yield _Argument(key, given.get(key), True, key in given, own, True)
        else:
            only = parameter.kind is parameter.KEYWORD_ONLY
            by_name = only or name in kwargs
            default = _default(parameter, default)
            yield _Argument(name, bound.get(name), by_name, name in bound, default, only)


def _default(parameter: inspect.Parameter, before: tuple[Value, ...]) -> tuple[Value, ...]:
    """Return the default of a parameter of the rebuilt model.

    After a parameter with a default, Python requires a default for each further one. Such a
    parameter gets None, which a guard refuses if the capture had another value.
    """
    if parameter.default is parameter.empty:
        return before and (None,)
    try:
        return (to_plain_literal(parameter.default),)
    except UnknownValueError:
        return (repr(parameter.default),)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in a value."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, _CONTAINERS):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, torch.Tensor):
                yield item
            elif isinstance(item, _CONTAINERS):
                yield from tensors_in(item)


_CONTAINERS = (dict, tuple, list)


def _like(container: Any, inside: dict[Any, Any]) -> Any:
    """Return a container of the same class with other items."""
    kind = type(container)
    if isinstance(container, dict):
        if kind is dict:
            return inside
        # The constructor of a subclass may take other arguments.
        copied = copy.copy(container)
        for key, item in inside.items():
            copied[key] = item
        return copied
    return kind(*inside.values()) if hasattr(container, "_fields") else kind(inside.values())


@dataclass(frozen=True, slots=True)
class _Container:
    """A dict or list among the arguments.

    Attributes:
        value: the copy for the model.
        before: the items of the copy before the run.
        part: its value in the graph.
    """

    value: Any
    before: list[tuple[Any, Any]]
    part: TracedValue

    def changes(self) -> Iterator[tuple[str, tuple[TracedValue, object, object]]]:
        """See :meth:`Arguments.changes`. All items from the first change on are set, in order."""
        now = _items(self.value)
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


class _Binding:
    """Copies one argument and binds the tensors in it.

    Args:
        recorder: records the calls that read elements of the argument.
        bind: binds a tensor to its value.
        size: makes the symbolic numbers in objects.
        name: the name of the argument.
        objects: the classes of objects that the argument may contain.
        containers: receives the dicts and lists in the argument.
        given_objects: receives the objects in the argument.

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
        containers: list[_Container],
        given_objects: list[GivenObject],
    ) -> None:
        self._recorder = recorder
        self._bind = bind
        self._size = size
        self._name = name
        self._objects = objects
        self._containers = containers
        self._given_objects = given_objects
        self.is_open = False

    def root(self, given: Any, value: TracedValue) -> Any:
        """Return a copy of the argument, with its tensors bound."""
        self.is_open = self._objects.is_open(given)
        if not self.is_open:
            return self._noted(_copied(given), value)
        if isinstance(given, torch.Tensor):
            return self._tensor(given, value)
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
                f"the argument {self._name!r} holds {error}, which a graph cannot: give tensors, "
                "numbers, strings, None, and tuples, lists, dicts and dataclasses of them"
            ) from None

    def _tensor(self, tensor: torch.Tensor, value: TracedValue | LazyElement) -> torch.Tensor:
        reason = unsuitable(tensor)
        if reason is None and type(tensor) not in PLAIN_CLASSES:
            reason = f"is a {type(tensor).__name__}; give a plain torch.Tensor"
        if reason is not None:
            raise CaptureError(f"a tensor in the argument {self._name!r} {reason}")
        copied = copy_of(tensor)
        self._bind(copied, value)
        return copied

    def _inside(self, given: Any, part: TracedValue, *, is_of_object: bool = False) -> Any:
        """Return a copy of an element of a container or an object."""
        if isinstance(given, torch.Tensor):
            self._call("layergraph.assume_tensor", part, self._name)
            return self._tensor(given, part)
        if self._objects.row(given) is not None:
            return self._object(given, part)
        if not isinstance(given, tuple | list | dict):
            where = f"a part of the input {self._name!r}"
            self._call("layergraph.assume", part, self.plain(given), where)
            return given
        self._expect_class(given, part, list(given) if isinstance(given, dict) else len(given))
        if is_of_object and type(given) is torch.Size:
            return tuple([self._size(number, part, n) for n, number in enumerate(given)])
        copies = {
            key: self._inside(
                item, self._call("operator.getitem", part, key), is_of_object=is_of_object
            )
            for key, item in (given.items() if isinstance(given, dict) else enumerate(given))
        }
        try:
            like = _like(given, copies)
        except Exception as error:
            raise CaptureError(
                f"the argument {self._name!r} holds a {type(given).__name__}, of which no copy can "
                f"be made: {type(error).__name__}: {first_line(error)}; give a plain one"
            ) from error
        return self._noted(like, part)

    def _object(self, given: Any, part: TracedValue) -> Any:
        """Return a copy of an object of another library."""
        row, parts = self._objects.row(given), self._objects.parts(given)
        if row is None:
            raise CaptureError(f"the argument {self._name!r} holds a {type(given).__name__}")
        is_sized = self._objects.is_made(given)
        length = len(given) if is_sized and isinstance(given, Sized) else None
        self._expect_class(given, part, length)
        flat = self._call(self._objects.name(row.flatten), part)
        copied = self._objects.copy(given, self._inside(parts, flat, is_of_object=is_sized))
        self._given_objects.append(GivenObject(copied, self._objects.parts(copied), part))
        return copied

    def _expect_class(self, given: Any, part: TracedValue, keys: Value) -> None:
        said = class_name(given), keys, f"the input {self._name!r}"
        self._call("layergraph.assume_container", part, *said)

    def _call(self, target: str, *args: Value) -> TracedValue:
        return self._recorder.call("function", target, args, {})

    def _noted(self, value: Any, part: TracedValue) -> Any:
        if isinstance(value, dict | list):
            self._containers.append(_Container(value, _items(value), part))
        return value


def element(late: DeferredCall, whole: LazyElement, key: Any) -> LazyElement:
    """Return a function that records the read of an item of a container at its first call."""

    def part() -> TracedValue:
        return late.call((part,), "operator.getitem", (whole(), key))

    return part
