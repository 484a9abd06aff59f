"""Guards that distinguish two runs with different inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from layergraph.control_flow.choices import holds
from layergraph.ir import Value
from layergraph.torch2ir.tracing.module_call import Call, TracedValue
from layergraph_capture.ways.regions import Item
from layergraph_capture.ways.selection import are_same
from layergraph_capture.ways.way import Way

HOLDS = f"layergraph.{holds.__name__}"
GUARD = "layergraph.assume"
_HOME = "layergraph."


@dataclass(frozen=True, slots=True)
class Question:
    """A guard that the inputs of one run pass and those of another run may not.

    Attributes:
        position: its position in the first run.
        own: the text of the guard in the first run.
        other: the text of the guard in the other run.
        guard: its name.
        args: its merged arguments.
        is_of_both: whether the other run has a guard of the same name.
    """

    position: int
    own: str
    other: str
    guard: str
    args: tuple[Value, ...]
    is_of_both: bool

    def explain(self, theirs: TracedValue) -> None:
        """Name both examples in the message of the other run's guard, merged as a value."""
        call = theirs.call
        if self.guard == "assume" and self.is_of_both and call is not None:
            value, expected, where = call.args
            text = f"{where} was {self.args[1]!r} in one example, and in another one it"
            call.args = value, expected, text


def asked(ways: tuple[Way, Way], one: Item, other: Item) -> Question | None:
    """Return the question that two calls ask; None if they are no guards that differ.

    Both check the same value, which is for example a tensor on one way and None on the other. If
    the other way was merged from several examples that differ at this guard, it has a decision in
    this place.
    """
    mine, theirs = ways
    if not (_is_guard(one) and isinstance(other, Call)):
        return None
    has_decision = other.target == HOLDS
    if not (has_decision or _is_guard(other)):
        return None
    own = one.target.removeprefix(_HOME)
    there = other.args[0] if has_decision else other.target.removeprefix(_HOME)
    value, *said = mine.read(one.args)
    their_value, *theirs_said = theirs.read(other.args[1:] if has_decision else other.args)
    if not are_same(value, their_value):
        return None
    is_of_both = own == there and not has_decision
    if is_of_both and are_same(said, theirs_said):
        return None
    texts = repr((own, said)), repr((there, theirs_said))
    return Question(one.value.position, *texts, own, (value, *said), is_of_both)


def _is_guard(item: Item) -> TypeGuard[Call]:
    return isinstance(item, Call) and item.target.startswith(GUARD)
