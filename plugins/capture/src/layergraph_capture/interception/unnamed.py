"""Calls of functions without a name in an IR: the tracer records their inner calls, or refuses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from layergraph.functions.operations import OPERATIONS, is_composite
from layergraph.ir import Symbol
from layergraph.ir.values import leaves
from layergraph.tensors.memory import lie_alike
from layergraph.torch2ir.tracing.called_functions import unnamed
from layergraph.torch2ir.tracing.module_call import Call
from layergraph.torch2ir.tracing.recorder import Recorder
from layergraph_capture.interception.torch_modes import RecordingSwitch, with_numbers
from layergraph_capture.symbolic.symbolic_int import lost
from layergraph_capture.trackers.snapshot import StateSnapshot
from layergraph_capture.trackers.tensors import Tensors, holds_no_tensor

Attempt = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""A function that makes a call without recording it, and records an error under a name."""


class UnnamedCalls:
    """Makes calls of functions without a name, and records the operations inside.

    Args:
        recorder: records the inner calls.
        tensors: maps tensors to their values.
        switch: turns recording off for a call.
        snapshot: saves tensors of the model before they change.
        refuse: records a refusal.
        attempt: makes a call without recording it.
    """

    def __init__(
        self,
        recorder: Recorder,
        tensors: Tensors,
        switch: RecordingSwitch,
        snapshot: StateSnapshot,
        refuse: Callable[[str], None],
        attempt: Attempt,
    ) -> None:
        self._recorder = recorder
        self._tensors = tensors
        self._switch = switch
        self._snapshot = snapshot
        self._refuse = refuse
        self._attempt = attempt
        # Whether gradients were on where code called the outermost function without a name.
        self._outside: bool | None = None

    def other_mode(self) -> bool | None:
        """Return whether gradients are on, if the function without a name has switched them."""
        is_on: bool = self._switch.unrecorded(torch.is_grad_enabled, (), {})
        return None if self._outside in (None, is_on) else is_on

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call of a function without a name, and record the operations inside it."""
        name = getattr(func, "__name__", "")
        if isinstance(func, torch._ops.HigherOrderOperator):
            reason = (
                f"the operation torch.ops.higher_order.{func}, which calls functions that a graph "
                "cannot hold"
            )
            return self.refused(reason, func, args, kwargs)
        if name == "__set__":
            return self._set(func.__self__.__name__, func, args, kwargs)
        if isinstance(func, OPERATIONS) and not is_composite(func):
            return self.refused(unnamed(func), func, args, kwargs)
        if (getattr(func, "__module__", None) or "").startswith("torch.autograd"):
            self._refuse(f"{name}, which computes gradients")
        recorded = len(self._recorder.scope.items)
        outside = self._outside
        if outside is None:
            self._outside = self._switch.unrecorded(torch.is_grad_enabled, (), {})
        try:
            result = func(*with_numbers(args, lost), **with_numbers(kwargs, lost))
        finally:
            self._outside = outside
        self._guard(recorded, args, kwargs)
        concerned = not holds_no_tensor([*args, *kwargs.values(), result])
        if concerned and recorded == len(self._recorder.scope.items):
            what = func.__self__.__name__ if name == "__get__" else name or repr(func)
            self._refuse(f"{what!r} of a tensor, which has no name in an IR")
        return result

    def _set(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Set an attribute of a tensor."""
        self._switch.unrecorded(self._snapshot.save, args[:1], {})
        # Code casts a parameter like an input, and assigns what is then the same tensor.
        if name != "data" or not self._switch.unrecorded(lie_alike, args, {}):
            self._refuse(f"setting the attribute {name!r} of a tensor")
        return self._switch.unrecorded(func, args, kwargs)

    def refused(self, reason: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Refuse a call of a function without a name, and make the call.

        Its results become values, so that later calls cause no further refusals.
        """
        self._refuse(reason)
        if isinstance(func, torch._ops.HigherOrderOperator):
            result = self._switch.inside_modes(func, args, kwargs)
        else:
            result = self._attempt(str(func), func, args, kwargs)
        if holds_no_tensor(result):
            return result
        value = self._recorder.call("function", str(func), (), {})
        return self._tensors.bound(result, value, {})

    def _guard(self, recorded: int, args: Any, kwargs: Any) -> None:
        """Guard the sizes and dtypes by which a function without a name may have branched.

        Args:
            recorded: the number of items before the call.
            args: the positional arguments.
            kwargs: the keyword arguments.
        """
        items = self._recorder.scope.items
        beneath = [
            item
            for item in items[recorded:]
            if isinstance(item, Call) and "aten.detach" not in item.target
        ]
        done = len(items)
        if len(beneath) > 1:
            # With other sizes, the function may take another path.
            self._tensors.guard_shapes(args, kwargs)
        if any(map(_names_a_dtype, beneath)):
            self._tensors.guard_dtypes(args, kwargs)
        if done < len(items):
            self._recorder.bring_forward(recorded, done)


def _names_a_dtype(call: Call) -> bool:
    """Return whether a call has a dtype argument, which torch may have taken from a tensor."""
    given = leaves(call.args, call.kwargs)
    return any(type(leaf) is Symbol and leaf.name in _DTYPES for leaf in given)


_DTYPES = frozenset(str(each) for each in vars(torch).values() if isinstance(each, torch.dtype))


def takes_sizes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether an operation has number arguments that may come from sizes."""
    for index, name, default in _size_arguments(func):
        given = args[index] if index < len(args) else kwargs.get(name)
        if given is not None and given != default:
            return True
    return False


@functools.cache
def _size_arguments(func: Any) -> list[tuple[int, str, Any]]:
    """Return the arguments that take symbolic ints: place, name and default of each."""
    return [
        (index, argument.name, argument.default_value)
        for index, argument in enumerate(func._schema.arguments)
        if _takes_symbolic_int(argument.real_type)
    ]


def _takes_symbolic_int(kind: Any) -> bool:
    # str() of a SymInt type is "int", so look inside lists and optionals.
    if kind.kind() in ("ListType", "OptionalType"):
        return _takes_symbolic_int(kind.getElementType())
    return bool(kind.kind() == "SymIntType")
