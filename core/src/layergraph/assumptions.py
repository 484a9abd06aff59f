"""What a graph was captured under, checked when it runs."""

from __future__ import annotations

import os
from collections.abc import Sized

import torch
from torch.overrides import handle_torch_function

from layergraph.errors import AssumptionError
from layergraph.symbols import UnknownValueError, lower_plain

_REMEDY = "the original may compute something else then; set it back, or capture the model so"


def assume(value: object, expected: object, where: str) -> None:
    """Raise if something that decided which graph was captured is now different.

    Args:
        value: what it is now.
        expected: what it was at the capture.
        where: what it is, and which line of the model's code read it.

    Raises:
        AssumptionError: the two differ.
    """
    if not _is_the_same(value, expected):
        now = "a tensor" if isinstance(value, torch.Tensor) else repr(value)
        raise AssumptionError(broken(where, expected, now))


def broken(where: str, expected: object, now: str) -> str:
    """The message that something is not what it was at the capture."""
    return f"{where} was {expected!r} when this model was captured, and now it is {now}: {_REMEDY}"


def _is_the_same(value: object, expected: object) -> bool:
    """Whether two plain values are alike in kind too: 1, 1.0 and True compute different things."""
    if value is expected:
        return True
    # While a model is compiled or exported, a number may be a symbol, which asking makes a guard.
    # A tuple of classes: the compiler of torch 2.6 cannot read a union of them.
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
    try:
        # As text, nan is nan, and -0.0 is not 0.0.
        return repr(lower_plain(value)) == repr(lower_plain(expected))
    except UnknownValueError:
        return False


_SIMPLE = frozenset({bool, int, str, type(None)})


def assume_truth(value: torch.Tensor, expected: bool, where: str) -> None:
    """Raise if a tensor that decided which graph was captured is now true where it was not.

    In a compiled model torch checks it, so that the graph need not end here to read the number.

    Args:
        value: the tensor, of one number.
        expected: whether it was true at the capture.
        where: the line of the model's code that asked for it.

    Raises:
        AssumptionError: it differs. In a compiled model it is a RuntimeError of the same text.
    """
    if torch.compiler.is_compiling():
        holds = (value != 0) if expected else (value == 0)
        torch._assert_async(holds, broken(where, expected, repr(not expected)))
        return
    assume(bool(value), expected, where)


def assume_environment(name: str, expected: str | None, where: str) -> None:
    """Raise if a variable of the environment is not what it was at the capture.

    Args:
        name: the name of the variable.
        expected: what it was; None if it was not set.
        where: the line of the model's code that read it.

    Raises:
        AssumptionError: it is something else.
    """
    assume(os.environ.get(name), expected, f"the environment's {name}, read in {where},")


def assume_length(value: Sized, expected: int, where: str) -> None:
    """Raise if something has more parts, or fewer, than it had at the capture.

    Args:
        value: what has parts: a tuple of tensors, say.
        expected: how many there were.
        where: the line of the model's code that took it apart.

    Raises:
        AssumptionError: there are more or fewer.
    """
    if hasattr(type(value), "__torch_function__") and not isinstance(value, torch.Tensor):
        # It stands for a value, as where a rebuilt model is traced: who traces records the guard.
        handle_torch_function(assume_length, (value,), value, expected, where)
        return
    if len(value) != expected:
        raise AssumptionError(
            f"what is taken apart in {where} had {expected} parts when this model was captured, "
            f"and now it has {len(value)}: {_REMEDY}"
        )


def assume_container(value: object, kind: str, keys: object, where: str) -> None:
    """Raise if an input is not the container that it was at the capture.

    Args:
        value: the input, or a part of it.
        kind: the name of its class: ``"list"``, say.
        keys: the keys of a dict in order; how many items another container has.
        where: which input it is.

    Raises:
        AssumptionError: it is of another class, or has other keys, or more items or fewer.
    """
    assume(type(value).__name__, kind, f"the class of {where}")
    if isinstance(value, dict):
        assume(list(value), keys, f"the keys of {where}")
    elif isinstance(value, Sized):
        assume(len(value), keys, f"the number of items of {where}")


def assume_tensor(
    value: object, name: str, rank: int | None = None, dtype: torch.dtype | None = None
) -> None:
    """Raise if an input is no tensor, or not one of the kind that the code inside asked for.

    Args:
        value: the input.
        name: its name.
        rank: how many dimensions it had; None if that does not matter.
        dtype: its dtype; None if that does not matter.

    Raises:
        AssumptionError: it is something else.
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
