"""Integers known in each turn: the number of the turn, and numbers computed from it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from layergraph.ir import Value
from layergraph.torch2ir.tracing.module_call import Call, TracedValue
from layergraph_capture.loops.repeats import Item
from layergraph_capture.loops.turns import BEGIN, COUNT, TURN
from layergraph_capture.loops.written import ASSUME

COMPUTED: dict[str, Callable[..., Any]] = {
    f"operator.{each.__name__}": each
    for each in (
        *(operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.neg),
        *(operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne),
        *(operator.pos, operator.abs, operator.truediv, operator.pow),
    )
}


def number_of_turn(value: Value) -> Any:
    """Return the integer of a value computed from turn numbers; None for any other value."""
    if not isinstance(value, TracedValue):
        return value if type(value) in (int, float, bool) else None
    call = value.call
    if call is None or call.kwargs:
        return None
    if call.target in (TURN, BEGIN):
        return call.args[0]
    computed = COMPUTED.get(call.target)
    if computed is None:
        return None
    args = [number_of_turn(each) for each in call.args]
    try:
        return None if None in args else computed(*args)
    except (ArithmeticError, TypeError):
        return None


def is_of_turns(item: Item | None) -> bool:
    """Return whether a call only computes or guards numbers computed from turn numbers."""
    if not isinstance(item, Call):
        return False
    if item.target in (ASSUME, COUNT):
        return number_of_turn(item.args[0]) is not None
    return number_of_turn(item.value) is not None


def is_trivial(item: Item | None) -> bool:
    """Return whether code reads a turn number as a plain number, on which it may branch."""
    if not isinstance(item, Call) or item.target not in (ASSUME, COUNT) or not is_of_turns(item):
        return False
    number = item.args[1]
    return type(number) is int and number == number_of_turn(item.args[0])
