"""Functions for decisions in a graph, which select values and calls by the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import handle_torch_function

from layergraph.control_flow import guards
from layergraph.errors import AssumptionError


def truth(value: object, where: str = "") -> Any:
    """Return the truth value of a decision, as ``if value:`` reads it.

    Args:
        value: a tensor of one number, or a plain value.
        where: the line of the model's code that branches.

    Raises:
        RuntimeError: the value is a tensor of several numbers.
    """
    if is_recorded(value):
        return handle_torch_function(truth, (value,), value, where)
    # For torch.compile, a branch, unlike bool(), is a graph break here, so it compiles both ways.
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
        condition: True, False, or None if the decision did not run.
        if_true: the value for True.
        if_false: the value for False.

    Returns:
        The selected value; None if the condition is None.

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
    """Call a function if a condition has the expected value. A node with ``when`` runs this.

    Args:
        condition: True, False, or None if the decision did not run.
        expected: the condition under which the function is called.
        function: the function, or a module.
        args: its positional arguments.
        kwargs: its keyword arguments.

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
    # torch.compile and torch.export compare sizes that are symbols.
    if isinstance(condition, (bool, torch.SymBool)):
        return expected if condition else not expected
    if isinstance(condition, torch.Tensor) and torch._C._is_tracing():
        return bool(condition) is expected  # under torch.jit.trace, sizes are tensors
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
    """Return the function of a call; for a conditional call, the function inside.

    Args:
        target: the called function, which may be :func:`conditionally`.
        args: its arguments.
    """
    return args[2] if target is conditionally and len(args) > 2 else target
