"""The guards: functions that a graph calls to check what its capture depended on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence, Sized

import torch
from torch.overrides import handle_torch_function

from layergraph.errors import AssumptionError, AssumptionWarning
from layergraph.literals import UnknownValueError, to_plain_literal
from layergraph.named import name_of_named, text_of
from layergraph.outputs import class_name

_REMEDY = (
    "the original may take another path for it; pass the value of the capture, or capture again "
    "with this one"
)


def assume(value: object, expected: object, where: str) -> None:
    """Raise if a value that decided a branch at capture is different now.

    Args:
        value: the value now.
        expected: the value at capture.
        where: the name of the value, and the line of the model's code that read it.

    Raises:
        AssumptionError: the two differ.
    """
    if not _is_the_same(value, expected):
        now = "a tensor" if isinstance(value, torch.Tensor) else repr(value)
        raise AssumptionError(broken(where, expected, now))


def broken(where: str, expected: object, now: str) -> str:
    """Return the message of a failed guard."""
    return f"{where} was {expected!r} when this model was captured, and now it is {now}: {_REMEDY}"


def _is_the_same(value: object, expected: object) -> bool:
    """Return whether two plain values are equal and of one type: 1, 1.0 and True are different."""
    if value is expected:
        return True
    # While torch.compile or torch.export traces, a number may be a symbol. Comparing it adds a
    # guard there. A tuple of classes: the compiler of torch 2.6 cannot read a union of them.
    if type(expected) is bool and isinstance(value, (bool, torch.SymBool)):
        return (True if value else False) is expected  # noqa: SIM210
    if type(expected) is int and isinstance(value, torch.SymInt):
        return bool(value == expected)
    if type(expected) is float and isinstance(value, torch.SymFloat):
        return bool(value == expected)
    if type(value) is type(expected) and type(value) in _SIMPLE:
        return value == expected
    for kind in (list, tuple):
        if isinstance(value, kind) and type(expected) is kind and not hasattr(value, "_fields"):
            pairs = zip(value, expected, strict=True)
            return len(value) == len(expected) and all(_is_the_same(*each) for each in pairs)
    if isinstance(value, torch.Tensor) and torch._C._is_tracing():
        # While torch.jit.trace runs, sizes are tensors of one number.
        return value.numel() == 1 and _is_the_same(value.item(), expected)
    return _text(value) == _text(expected)


def _text(value: object) -> object:
    """Return the text of a value; a new object for a value without one, which equals no other."""
    try:
        # Compare texts, in which nan equals nan, and -0.0 differs from 0.0.
        return repr(text_of(value) or to_plain_literal(value))
    except UnknownValueError:
        return object()


_SIMPLE = frozenset({bool, int, str, type(None)})


def assume_truth(value: torch.Tensor, expected: bool, where: str, otherwise: str = "") -> None:
    """Raise if a tensor that decided a branch at capture has another truth value now.

    In a compiled model, torch makes the check asynchronously, which avoids a graph break.

    Args:
        value: a tensor of one number.
        expected: its truth value at capture.
        where: the line of the model's code that read it.
        otherwise: a message about the other way: the error that the model raises there, or the
            reason why the graph does not hold it.

    Raises:
        AssumptionError: the truth value differs. A compiled model raises a RuntimeError instead.
    """
    message = f"{where}: {otherwise}" if otherwise else broken(where, expected, repr(not expected))
    if isinstance(value, torch.Tensor) and torch.compiler.is_compiling():
        holds = (value != 0) if expected else (value == 0)
        torch._assert_async(holds, message)
    elif bool(value) is not expected:
        raise AssumptionError(message)


def assume_device(value: torch.Tensor, kind: str, expected: bool, where: str) -> None:
    """Warn if a branch that asked for a kind of device at capture now gets the other answer.

    This is no error, because most models compute the same in both branches.

    Args:
        value: the tensor.
        kind: a kind of device, such as ``"cuda"``.
        expected: whether the tensor was on such a device at capture.
        where: the line of the model's code that asked.

    Warns:
        AssumptionWarning: the answer differs.
    """
    if (value.device.type == kind) is not expected:
        was = "a device" if expected else "no device"
        warnings.warn(
            f"{where} asks for a device of kind {kind!r}; this model was captured on {was} of "
            f"that kind, and now its input is on {value.device}: the original may compute "
            "something else there; capture the model on it",
            AssumptionWarning,
            stacklevel=2,
        )


def assume_environment(name: str, expected: str | None, where: str) -> None:
    """Raise if an environment variable has another value than at capture.

    Args:
        name: the name of the variable.
        expected: its value at capture; None if it was not set.
        where: the line of the model's code that read it.

    Raises:
        AssumptionError: it differs.
    """
    assume(os.environ.get(name), expected, f"the environment's {name}, read in {where},")


def assume_length(value: Sized, expected: int, where: str) -> None:
    """Raise if a value that the model unpacks has another length than at capture.

    Args:
        value: the value, such as a tuple of tensors.
        expected: its length at capture.
        where: the line of the model's code that unpacks it.

    Raises:
        AssumptionError: the length differs.
    """
    if hasattr(type(value), "__torch_function__") and not isinstance(value, torch.Tensor):
        # A proxy, for example while a rebuilt model is traced. Its tracer records the guard.
        handle_torch_function(assume_length, (value,), value, expected, where)
        return
    if len(value) != expected:
        raise AssumptionError(
            f"what is taken apart in {where} had {expected} parts when this model was captured, "
            f"and now it has {len(value)}: {_REMEDY}"
        )


def assume_container(value: object, kind: str, keys: object, where: str) -> None:
    """Raise if a container among the inputs has another class, keys or length than at capture.

    Args:
        value: the input, or a part of it.
        kind: the name of its class at capture, such as ``"list"``.
        keys: the keys of a dict in order; the length of another container; None if that does not
            matter.
        where: the name of the input.

    Raises:
        AssumptionError: the class, the keys or the length differ.
    """
    assume(class_name(value), kind, f"the class of {where}")
    if isinstance(value, dict):
        assume(list(value), keys, f"the keys of {where}")
    elif keys is not None and isinstance(value, Sized):
        assume(len(value), keys, f"the number of items of {where}")


def assume_named(value: object, kind: str, name: str, where: str) -> None:
    """Raise if an input is another member of an enumeration, class or function than at capture.

    Args:
        value: the input, or a part of it.
        kind: the name of its class at capture.
        name: its name at capture: see :func:`~layergraph.named.name_of_named`.
        where: the name of the input.

    Raises:
        AssumptionError: it is another one, or none.
    """
    assume(class_name(value), kind, f"the class of {where}")
    assume(name_of_named(value), name, where)


def assume_distinct(values: Sequence[object], where: str) -> None:
    """Raise if two inputs, or parts of some, are one object, which they were not at capture.

    Args:
        values: the inputs and parts.
        where: the reason for which this counts.

    Raises:
        AssumptionError: two of them are one object.
    """
    if len({id(each) for each in values}) < len(values):
        raise AssumptionError(
            f"one object is twice among the arguments, and {where}: when this model was captured, "
            "they were different ones; give a copy in one place"
        )


def assume_tensor(
    value: object, name: str, rank: int | None = None, dtype: torch.dtype | None = None
) -> None:
    """Raise if an input is not a tensor, or has another rank or dtype than at capture.

    Args:
        value: the input.
        name: its name.
        rank: its number of dimensions at capture; None if the code does not depend on it.
        dtype: its dtype at capture; None if the code does not depend on it.

    Raises:
        AssumptionError: it is not a tensor, or rank or dtype differ.
    """
    if not isinstance(value, torch.Tensor):
        raise AssumptionError(
            f"the input {name!r} was a tensor when this model was captured, and now it is "
            f"{value!r}: {_REMEDY}"
        )
    if rank is not None and value.dim() != rank:
        raise AssumptionError(
            f"the input {name!r} had {rank} dimensions when this model was captured, and now it "
            f"has {value.dim()}: {_REMEDY}"
        )
    if dtype is not None and value.dtype is not dtype:
        raise AssumptionError(
            f"the input {name!r} was of {dtype} when this model was captured, and now it is of "
            f"{value.dtype}: {_REMEDY}"
        )


GUARDS: tuple[Callable[..., None], ...] = (
    assume,
    assume_container,
    assume_device,
    assume_distinct,
    assume_environment,
    assume_length,
    assume_named,
    assume_tensor,
    assume_truth,
)
"""All guards."""
