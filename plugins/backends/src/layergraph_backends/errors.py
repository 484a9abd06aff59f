"""The error of a target that lacks a part of a model."""

from __future__ import annotations

from typing import NamedTuple

from layergraph.errors import LayergraphError

_MOST = 20


class Lack(NamedTuple):
    """A step of a model that a target does not support.

    Attributes:
        path: the graph that has the step and the name of its node: ``"encoder:attention"``.
        kind: the type of the layer, or the name of the function.
        reason: the reason.
        others: the number of further steps of this kind with the same reason.
    """

    path: str
    kind: str
    reason: str
    others: int = 0

    def __str__(self) -> str:
        more = f" (and {self.others} more)" if self.others else ""
        return f"{self.path}{more}: {self.kind}: {self.reason}"


class LoweringError(LayergraphError):
    """A model has steps that a target does not support. The message lists them with their places.

    Attributes:
        target: the name of the target.
        lacks: the steps, each reason of a kind once, in execution order.
    """

    def __init__(self, target: str, lacks: tuple[Lack, ...]) -> None:
        self.target = target
        self.lacks = lacks
        listed = [f"  {each}" for each in lacks[:_MOST]]
        if len(lacks) > _MOST:
            listed.append(f"  and {len(lacks) - _MOST} more, in .lacks")
        super().__init__("\n".join([f"the target {target!r} lacks:", *listed]))
