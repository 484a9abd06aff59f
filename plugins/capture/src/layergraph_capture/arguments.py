"""The arguments of the call in which a model is captured."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from layergraph.capturing import Example
from layergraph.errors import CaptureError
from layergraph.ir import Value
from layergraph.ir.names import is_argument_name
from layergraph.literals import UnknownValueError, to_plain_literal
from layergraph.named import text_of
from layergraph.torch2ir.indexing.overrides import call_signature
from layergraph.torch2ir.tracing.module_call import DeferredCall, Parameter, TracedValue
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.binding import Bind, Binding, Given, ItemTurns, LazyElement, Size
from layergraph_capture.trackers.objects import Objects

NOT_GIVEN: tuple[Value, ...] = (...,)
"""The default of an argument that only some calls pass, by ``*args`` or ``**kwargs``.

Not None, because a call may pass None."""


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
        given: the arguments of the last run, as the model received them.

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
        self.given = Given()

    def bind(
        self,
        recorder: Recorder,
        bind: Bind,
        size: Size = lambda number, *_: number,
        turns: ItemTurns | None = None,
    ) -> tuple[list[Any], dict[str, Any], list[Parameter]]:
        """Return copies of the positional and keyword arguments, and all parameters of the graph.

        Args:
            recorder: makes the traced values.
            bind: binds a tensor to its value.
            size: makes the symbolic numbers in objects.
            turns: sees the items of lists and tuples; None if loops are not searched.
        """
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        parameters: list[Parameter] = []
        self.given = Given()
        for each in self._arguments:
            value = recorder.value(each.name)
            if not each.is_given:
                # The call leaves the argument at its default.
                default, only = each.default, each.only_by_name
                parameters.append(Parameter(each.name, value, default, default, only))
                continue
            binding = Binding(recorder, bind, size, each.name, self._objects, self.given, turns)
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
        for each in self.given.containers:
            yield from each.changes()

    def distinct(self, where: str, *, with_tensors: bool) -> tuple[TracedValue, ...]:
        """Return the values that a later call has to give as different objects.

        Args:
            where: the reason for which this counts.
            with_tensors: whether tensors count, too.

        Raises:
            CaptureError: this call gives one object twice.
        """
        parts = [
            (given, part)
            for given, part in self.given.parts
            if with_tensors or not isinstance(given, torch.Tensor)
        ]
        if len({id(given) for given, _ in parts}) < len(parts):
            raise CaptureError(
                f"one object is twice among the arguments, and {where}; give a copy in one place"
            )
        return tuple([part for _, part in parts])


def _arguments(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], calls: Iterable[Example]
) -> Iterator[_Argument]:
    """Yield all arguments in the order of the signature, including those left at a default."""
    try:
        signature = call_signature(model)
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
    text = text_of(parameter.default)
    if text is not None:
        return (text,)
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


def element(late: DeferredCall, whole: LazyElement, key: Any) -> LazyElement:
    """Return a function that records the read of an item of a container at its first call."""

    def part() -> TracedValue:
        return late.call((part,), "operator.getitem", (whole(), key))

    return part
