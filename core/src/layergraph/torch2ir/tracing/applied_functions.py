"""Patches that show calls of ``torch.autograd.Function``, which the modes of torch do not see."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import BackwardCFunction, FunctionMeta
from torch.nn.modules._functions import BackwardHookFunction

from layergraph.functions.foreign import APPLY, applied_class
from layergraph.torch2ir.tracing.held_by_functions import held
from layergraph.torch2ir.tracing.patches import Patch

if TYPE_CHECKING:
    from layergraph.torch2ir.tracing.tracer import Tracer

Record = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""A function that makes a call, records it, and returns its result."""


def applied_functions(capture: Tracer, keys: Mapping[int, str], record: Record) -> Iterator[Patch]:
    """Yield the patches that record each call of ``apply`` as one node, or refuse it.

    Args:
        capture: the tracer, which collects the refusals.
        keys: the state-dict key of each tensor of the model, by ``id``.
        record: records a call; the function is identified by its ``apply``.
    """

    @functools.cache
    def holds(cls: type) -> str | None:
        place = held(cls, capture.module_index, keys)
        return None if place is None else reads_of(repr(place))

    made: weakref.WeakSet[type] = weakref.WeakSet()
    make: Any = FunctionMeta.__init__
    begin: Any = BackwardCFunction.__init__

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        function = APPLY.__get__(None, cls)
        if not capture.is_recording():
            return function(*args, **kwargs)
        if cls is BackwardHookFunction:
            capture.refuse("a backward hook of a module; remove it, and register it on the result")
        problem = "its class is made in forward; make it once, outside" if cls in made else None
        problem = problem or holds(cls)
        if problem is not None:
            capture.refuse(f"{cls.__qualname__}, an autograd.Function: {problem}")
        return record(function, args, kwargs)

    def note_made(cls: Any, *args: Any, **kwargs: Any) -> None:
        make(cls, *args, **kwargs)
        if capture.is_recording():
            made.add(cls)

    def note_begun(context: Any, *args: Any, **kwargs: Any) -> None:
        # Every call constructs a context, whichever reference to the function the code uses.
        begin(context, *args, **kwargs)
        if capture.is_recording():
            name = type(context)._forward_cls.__qualname__
            capture.refuse(
                f"a call of {name}.apply by a reference that capture does not see, as in a tuple "
                f"or a default; write {name}.apply where it is called"
            )

    yield torch.autograd.Function, "apply", classmethod(apply)
    yield FunctionMeta, "__init__", note_made
    yield BackwardCFunction, "__init__", note_begun


def reads_of(what: str) -> str:
    """Return the refusal of a function that reads a module or tensor without taking it."""
    return (
        f"its code reads {what} without taking it as an argument, and would read the original "
        "model's; pass it as an argument"
    )


def seen_again(function: Any) -> Callable[..., Any] | None:
    """Return a stand-in for a kept ``MyFunction.apply`` that looks ``apply`` up in its class again.

    None for all other functions.
    """
    cls = applied_class(function)
    return None if cls is None else functools.partial(_apply, cls)


def _apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
    return cls.apply(*args, **kwargs)
