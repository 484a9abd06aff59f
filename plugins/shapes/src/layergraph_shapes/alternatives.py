"""Values that depend on decisions: one value per combination of answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from layergraph.errors import AssumptionError, ShapeError

_MOST = 6
"""The most decisions on which one node may depend; it runs once per combination of answers."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision by numbers, whose answer is unknown on tensors without numbers.

    Attributes:
        name: the path of its node.
        where: the line of the model's code; empty if the IR has none.
    """

    name: str
    where: str = ""


Answers: TypeAlias = Mapping[Decision, bool]


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """A value that a decision selects.

    Attributes:
        decision: the decision.
        if_true: the value if the answer is True.
        if_false: the value if it is False.
    """

    decision: Decision
    if_true: Any
    if_false: Any


class UndecidedError(Exception):
    """A computation depends on a decision that its answers leave open."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.name)
        self.decision = decision


def chosen(value: Any, answers: Answers) -> Any:
    """Return the value that answers select, also inside containers.

    Raises:
        UndecidedError: it depends on a decision without an answer.
    """
    while type(value) is Branch:
        if value.decision not in answers:
            raise UndecidedError(value.decision)
        value = value.if_true if answers[value.decision] else value.if_false
    if isinstance(value, tuple | list) and any(map(_is_open, value)):
        inside = [chosen(each, answers) for each in value]
        return type(value)(*inside) if hasattr(value, "_fields") else type(value)(inside)
    if isinstance(value, dict) and any(map(_is_open, value.values())):
        return {key: chosen(each, answers) for key, each in value.items()}
    return value


def _is_open(value: Any) -> bool:
    return isinstance(value, Branch | tuple | list | dict)


def on_each_way(compute: Callable[[Answers], Any], answers: Answers, depth: int = 0) -> Any:
    """Compute a value on both ways of each decision that it depends on.

    If one way fails, the value is that of the other one, because a call on the failing way raises.

    Args:
        compute: computes the value for some answers.
        answers: the answers that are known.
        depth: the number of decisions without an answer so far.

    Raises:
        ShapeError, AssumptionError: the computation fails on all ways.
    """
    try:
        return compute(answers)
    except UndecidedError as error:
        decision = error.decision
    if depth == _MOST:
        raise ShapeError(
            f"more than {_MOST} decisions meet; answer some of them, as in "
            f"decisions={{{decision.name!r}: True}}"
        )
    found = {}
    failed: Exception | None = None
    for answer in (True, False):
        try:
            found[answer] = on_each_way(compute, {**answers, decision: answer}, depth + 1)
        except (ShapeError, AssumptionError) as error:
            failed = error
    if not found and failed is not None:
        raise failed
    if len(found) == 1:
        return next(iter(found.values()))
    return merged(decision, found[True], found[False])


def merged(decision: Decision, if_true: Any, if_false: Any) -> Any:
    """Return one value for both ways if it is the same; else a branch."""
    return if_true if _same(if_true, if_false) else Branch(decision, if_true, if_false)


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and _same(tuple(one.shape), tuple(other.shape))
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(_same, one.values(), other.values()))
    if isinstance(one, torch.SymInt | torch.SymFloat | torch.SymBool):
        # A comparison with == would record a condition on the sizes.
        return bool(one.node.expr == other.node.expr)
    if isinstance(one, Branch):
        return one.decision == other.decision and all(
            map(_same, (one.if_true, one.if_false), (other.if_true, other.if_false))
        )
    return isinstance(one, _PLAIN) and bool(one == other)


_PLAIN = (bool, int, float, str, bytes, type(None), torch.dtype, torch.device)
