"""The parts of a record that is written with loops."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from layergraph.control_flow.loops import loop
from layergraph.torch2ir.tracing.module_call import (
    Call,
    ModuleCall,
    Trace,
    TracedBody,
    TracedValue,
)
from layergraph_capture.loops.repeats import Item

LOOP = f"layergraph.{loop.__name__}"
ASSUME = "layergraph.assume"
LENGTH = "layergraph.assume_length"
CONTAINER = "layergraph.assume_container"
GETITEM = "operator.getitem"
LEN = "builtins.len"
TUPLE = "builtins.tuple"


class NotRollableError(Exception):
    """The values of a repetition do not have the form of a loop."""


@dataclass(slots=True, eq=False)
class Rolled:
    """A record with loops.

    Attributes:
        trace: the record.
        glue: the calls that no run makes, which pass values into and out of loops.
        uncertain: the loops whose turns beyond those of the runs may make other calls.
    """

    trace: Trace
    glue: set[Call] = field(default_factory=set)
    uncertain: set[Call] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Level:
    """A list of items that is being written.

    Attributes:
        scope: the module call of the values that it computes.
        items: the items.
    """

    scope: ModuleCall
    items: list[Item]


@dataclass(slots=True, eq=False)
class WrittenLoop:
    """A loop that has been written.

    Attributes:
        turns: the number of its turns in this run.
        level: the level of the loop.
        call: the call of the loop.
        body: its body.
        slots: the values of a turn, in the new record.
        finals: the index in the result for each carried slot and distance from the last turn.
        carried: the number of carried values.
        lists: the list of each collected slot.
        readers: the readers of lists: a loop that reads one value in each turn, or None.
    """

    turns: int
    level: Level
    call: Call
    body: TracedBody
    slots: list[Any]
    finals: dict[tuple[int, int], int]
    carried: int
    lists: dict[int, TracedValue] = field(default_factory=dict)
    readers: list[Call | None] = field(default_factory=list)


Place = tuple[WrittenLoop, int, int]
"""The loop, the turn and the slot that compute a value of the old record."""


def take_facts(value: TracedValue, like: TracedValue) -> None:
    """Copy the preferred name, rank, dtype and number of a value."""
    value.wish, value.rank, value.dtype = like.wish, like.rank, like.dtype
    value.number = like.number


def value_at_start(scope: ModuleCall, wish: str) -> TracedValue:
    """Return a new value at the start of a module call."""
    return TracedValue(scope.start, scope, wish)
