"""Describe and make the surrogate gradients and quantizers of snntorch."""

from __future__ import annotations

from collections.abc import Callable
from types import CellType, FunctionType, ModuleType
from typing import Any, TypeGuard

import torch
from snntorch import surrogate  # type: ignore[import-untyped]
from snntorch.functional import quant  # type: ignore[import-untyped]

from layergraph import decline
from layergraph.ir import Value

Function = Callable[[torch.Tensor], torch.Tensor]

_DEFAULT = {"name": "atan", "alpha": 2.0}


def name_surrogate(function: Any) -> dict[str, Value] | None:
    """Return the name and parameters of a surrogate gradient; None for the default one.

    Raises:
        AttributeError: no function of ``snntorch.surrogate`` makes this gradient from numbers.
    """
    name = _maker_of(function, surrogate)
    parameters = _enclosed(function) if name else {}
    if name is None or not all(map(_is_number, parameters.values())):
        raise _unnamed("surrogate gradient", function, "snntorch.surrogate", "numbers")
    said: dict[str, Value] = {"name": name, **parameters}
    return None if repr(said) == repr(_DEFAULT) else said


def make_surrogate(said: dict[str, Any]) -> Function:
    """Make a surrogate gradient from its name and parameters."""
    parameters = dict(said)
    name = parameters.pop("name")
    maker = vars(surrogate).get(name)
    if not _is_maker(maker, surrogate) or not all(map(_is_number, parameters.values())):
        raise ValueError(f"snntorch.surrogate makes no gradient {name!r} from {parameters}")
    function: Function = maker(**parameters)
    return function


def levels_of(function: Any) -> list[float] | bool:
    """Return the levels to which a function rounds states; False if the function is False.

    Raises:
        AttributeError: ``snntorch.functional.quant.state_quant`` has not made the function.
    """
    if function is False:
        return False
    if _maker_of(function, quant) != "state_quant":
        raise _unnamed("state_quant", function, "snntorch.functional.quant", "its arguments")
    levels: list[float] = _enclosed(function)["levels"].tolist()
    return levels


def make_quantizer(levels: list[float] | bool) -> Function | bool:
    """Return the function that rounds states to levels."""
    if isinstance(levels, bool):
        return levels
    # We cannot compute the arguments of state_quant from the levels. So make any quantizer, and
    # replace its levels.
    made = quant.state_quant()
    cell = CellType(torch.tensor(levels, dtype=torch.float32, device="cpu"))
    return FunctionType(made.__code__, made.__globals__, made.__name__, None, (cell,))


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _maker_of(function: Any, home: ModuleType) -> str | None:
    """Return the name of the factory in a module that made a function; None without one."""
    if type(function) is not FunctionType or function.__globals__ is not vars(home):
        return None
    name = function.__code__.co_qualname.partition(".")[0]
    maker = vars(home).get(name)
    is_made = _is_maker(maker, home) and function.__code__ in maker.__code__.co_consts
    return name if is_made and not (function.__defaults__ or function.__kwdefaults__) else None


def _is_maker(maker: object, home: ModuleType) -> TypeGuard[FunctionType]:
    return type(maker) is FunctionType and maker.__globals__ is vars(home)


def _enclosed(function: FunctionType) -> dict[str, Any]:
    cells = function.__closure__ or ()
    names = function.__code__.co_freevars
    return {name: cell.cell_contents for name, cell in zip(names, cells, strict=True)}


def _unnamed(role: str, function: Any, home: str, made_of: str) -> AttributeError:
    said = getattr(function, "__qualname__", type(function).__qualname__)
    decline(f"its {role}, {said}, was not made by a function of {home} from {made_of}")
    return AttributeError(role)
