"""The choices of a graph: functions that decide, and that follow what was decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import handle_torch_function

from layergraph.control_flow import guards
from layergraph.errors import AssumptionError


def truth(value: object, where: str = "") -> Any:
    """Return the truth of a value by which a graph decides, as ``if value:`` reads it.

    Args:
        value: a tensor of one number, or a plain value.
        where: the line of the model's code that decides.

    Raises:
        RuntimeError: the value is a tensor of several numbers.
    """
    if is_recorded(value):
        return handle_torch_function(truth, (value,), value, where)
    # A branch, unlike bool(), breaks the graph of torch.compile here, so that it goes both ways.
    return True if value else False  # noqa: SIM210


def holds(guard: str, value: object, *given: Any) -> Any:
    """Return whether a guard lets a value pass.

    Args:
        guard: the name of a guard, such as ``"assume_tensor"``.
        value: the value that it checks.
        given: the other arguments of the guard.

    Raises:
        AssumptionError: there is no such guard.
    """
    if is_recorded(value):
        return handle_torch_function(holds, (value,), guard, value, *given)
    check = _GUARDS.get(guard)
    if check is None:
        raise AssumptionError(f"{guard!r} is no guard; give one of {', '.join(_GUARDS)}")
    try:
        check(value, *given)
    except AssumptionError:
        return False
    return True


_GUARDS = {each.__name__: each for each in guards.GUARDS}


def choose(condition: object, if_true: object, if_false: object) -> object:
    """Return one of two values.

    Args:
        condition: True, False, or None for a decision that the graph has not come to.
        if_true: the value for True.
        if_false: the value for False.

    Returns:
        The value; None where the condition is None.

    Raises:
        AssumptionError: the condition is something else.
    """
    if is_recorded(condition):
        return handle_torch_function(choose, (condition,), condition, if_true, if_false)
    if condition is None:
        return None
    return if_true if _holds(condition, True) else if_false


def conditionally(
    condition: object, expected: bool, function: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    """Call a function if a condition is what is expected. A node with ``when`` runs this.

    Args:
        condition: True, False, or None for a decision that the graph has not come to.
        expected: the condition under which the function is called.
        function: the function, or a module.
        args: its arguments.
        kwargs: its arguments by name.

    Returns:
        The result of the function; None if it is not called.

    Raises:
        AssumptionError: the condition is something else.
    """
    if is_recorded(condition):
        given = condition, expected, function, *args
        return handle_torch_function(conditionally, (condition,), *given, **kwargs)
    return function(*args, **kwargs) if _holds(condition, expected) else None


def _holds(condition: object, expected: bool) -> bool:
    if condition is True or condition is False:
        return condition is expected
    if isinstance(condition, torch.Tensor) and torch._C._is_tracing():
        return bool(condition) is expected  # a comparison of sizes, which are tensors there
    if condition is not None:
        raise AssumptionError(
            f"the condition of a node is {condition!r}; give True or False, or None for a "
            "decision that the graph has not come to"
        )
    return False


def is_recorded(value: object) -> bool:
    """Return whether a value is a proxy, for example while a rebuilt model is traced."""
    return hasattr(type(value), "__torch_function__") and not isinstance(value, torch.Tensor)


def called(target: object, args: tuple[Any, ...]) -> Any:
    """Return the function that a call runs, where it may run it conditionally.

    Args:
        target: the function that is called.
        args: its arguments.
    """
    return args[2] if target is conditionally and len(args) > 2 else target
