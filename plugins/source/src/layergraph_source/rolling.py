"""Loops over equal children: repeated calls become a ``for`` statement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from layergraph.ir import INPUT, OUTPUT, Ref, Value
from layergraph.ir.values import parts, rebuilt
from layergraph_source.regions import REGIONS
from layergraph_source.steps import ByMode, Step

LEAST_TURNS = 2


@dataclass(slots=True)
class Loop:
    """Repeated steps.

    Attributes:
        container: the expression of the container.
        first_item: the expression of its first item.
        steps: the steps of one iteration, which read variables that the last iteration wrote.
        end: the index after the last iteration.
        carried: the node of the first value, by the node whose variable an iteration reads and
            writes.
        renamed: for each node of a later iteration, the node of the first one with its variable.
    """

    container: str
    first_item: str
    steps: list[Step]
    end: int
    carried: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)


class _NoLoopError(Exception):
    pass


def rolled(
    steps: Sequence[Step],
    at: int,
    read: Callable[[Step], str],
    siblings: Callable[[Step], int],
    readers: Callable[[str], Sequence[Step]],
) -> Loop | None:
    """Return the loop that begins at an index; None if there is none.

    Args:
        steps: the steps of a block.
        at: the index of a step.
        read: returns the expression of the called module.
        siblings: returns the number of items of the container that holds the called module.
        readers: returns the steps of the method that read a node.
    """
    first = steps[at]
    item = read(first) if _is_call(first) else ""
    count = siblings(first) if item.endswith("[0]") else 0
    if count < LEAST_TURNS:
        return None
    container = item.removesuffix("[0]")
    wanted = f"{container}[1]"
    places = range(at + 1, len(steps))
    period = next((p - at for p in places if _is_call(steps[p]) and read(steps[p]) == wanted), 0)
    end = at + period * count
    if not period or end > len(steps):
        return None
    turns = [steps[at + period * k : at + period * (k + 1)] for k in range(count)]
    try:
        return _Roller(turns, container, read, readers).loop(end)
    except _NoLoopError:
        return None


def _is_call(step: Step) -> bool:
    return step.node.is_call and step.mode is None and step.when is None


class _Roller:
    def __init__(
        self,
        turns: list[Sequence[Step]],
        container: str,
        read: Callable[[Step], str],
        readers: Callable[[str], Sequence[Step]],
    ) -> None:
        self._turns = turns
        self._container = container
        self._read = read
        self._readers = readers
        self._offsets = [{step.node.name: at for at, step in enumerate(turn)} for turn in turns]
        self._first_value: dict[int, str] = {}
        self._roles: dict[str, list[int | None]] = {}

    def loop(self, end: int) -> Loop:
        """Return the loop.

        Raises:
            _NoLoopError: the iterations differ.
        """
        steps = []
        for at, step in enumerate(self._turns[0]):
            for number in range(1, len(self._turns)):
                self._compare(step, self._turns[number][at], number)
            args = tuple(
                self._carrying(each, self._pick(at, index)) for index, each in enumerate(step.args)
            )
            kwargs = {
                key: self._carrying(each, self._pick(at, key)) for key, each in step.kwargs.items()
            }
            steps.append(replace(step, args=args, kwargs=kwargs))
        self._check_uses(steps)
        names = [step.node.name for step in self._turns[0]]
        carried = {names[at]: first for at, first in self._first_value.items()}
        renamed = {
            step.node.name: names[at] for turn in self._turns[1:] for at, step in enumerate(turn)
        }
        item = f"{self._container}[0]"
        return Loop(self._container, item, steps, end, carried, renamed)

    def _pick(self, at: int, key: int | str) -> Value:
        """Return the argument of the second turn."""
        step = self._turns[1][at]
        return step.args[key] if isinstance(key, int) else step.kwargs[key]

    def _compare(self, one: Step, other: Step, number: int) -> None:
        node, second = one.node, other.node
        plain = (other.mode, other.when, one.mode, one.when) == (None,) * 4
        if not plain or node.type in (INPUT, OUTPUT) or node.implementation in REGIONS:
            raise _NoLoopError
        if node.is_call and second.is_call:
            wanted, found = self._read(one), self._read(other)
            if found != wanted and (wanted, found) != (
                f"{self._container}[0]",
                f"{self._container}[{number}]",
            ):
                raise _NoLoopError
        elif (node.type, node.implementation) != (second.type, second.implementation):
            raise _NoLoopError
        if len(one.args) != len(other.args) or list(one.kwargs) != list(other.kwargs):
            raise _NoLoopError
        roles: list[int | None] = []
        pairs = zip(
            (*one.args, *one.kwargs.values()), (*other.args, *other.kwargs.values()), strict=True
        )
        for first, last in pairs:
            self._alike(first, last, number, roles)
        # An argument is carried in all later turns, or in none.
        if self._roles.setdefault(one.node.name, roles) != roles:
            raise _NoLoopError

    def _alike(self, first: Value, last: Value, number: int, roles: list[int | None]) -> None:
        """Check that an argument of a later turn corresponds to one of the first turn."""
        if type(first) is Ref and type(last) is Ref:
            roles.append(self._role(first.node, last.node, number))
            return
        inside, others = parts(first), parts(last)
        if type(first) is ByMode or inside is None or others is None:
            if repr(first) != repr(last):
                raise _NoLoopError
            return
        same = type(first) is type(last) and len(inside) == len(others)
        if not same or (type(first) is dict and list(first) != list(last)):
            raise _NoLoopError
        for pair in zip(inside, others, strict=True):
            self._alike(*pair, number, roles)

    def _role(self, first: str, last: str, number: int) -> int | None:
        """Return the place in a turn whose value the next turn reads; None for another value."""
        inner, own = self._offsets[0].get(first), self._offsets[number].get(last)
        previous = self._offsets[number - 1].get(last)
        if inner is not None or own is not None or previous is None:
            is_same = inner == own if inner is not None or own is not None else first == last
            if not is_same:
                raise _NoLoopError
            return None
        if self._first_value.setdefault(previous, first) != first:
            raise _NoLoopError
        return previous

    def _carrying(self, first: Value, second: Value) -> Value:
        """Return an argument of the first turn that reads the variables of carried values."""
        if type(first) is Ref:
            at = self._offsets[0].get(second.node)
            return first if at is None else Ref(self._turns[0][at].node.name)
        inside = parts(first)
        if inside is None:
            return first
        pairs = zip(inside, parts(second) or (), strict=True)
        return rebuilt(first, [self._carrying(*pair) for pair in pairs])

    def _check_uses(self, steps: Sequence[Step]) -> None:
        """Check that each value is read in its turn, in the next one, or after the last."""
        for at in self._first_value:
            name = self._turns[0][at].node.name
            for place, step in enumerate(steps):
                # A carried value that a step reads after it was written is the new one.
                is_old = name in step.reads and name not in self._turns[0][place].reads
                is_new = name in step.reads and name in self._turns[0][place].reads
                if (is_old and place > at) or (is_new and place <= at) or (is_old and is_new):
                    raise _NoLoopError
        for number, turn in enumerate(self._turns):
            inside = [*turn, *(self._turns[number + 1] if number + 1 < len(self._turns) else ())]
            allowed = {id(step) for step in inside}
            is_last = number == len(self._turns) - 1
            for step in turn:
                for reader in self._readers(step.node.name):
                    if id(reader) not in allowed and not is_last:
                        raise _NoLoopError
