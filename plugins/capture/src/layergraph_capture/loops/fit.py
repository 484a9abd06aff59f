"""Fitting of integers that differ between runs: each becomes an expression of a size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from layergraph.ir import Value
from layergraph.ir.values import parts, rebuilt
from layergraph.torch2ir.tracing.module_call import (
    Call,
    ModuleCall,
    TracedBody,
    TracedValue,
    wish_of,
)
from layergraph_capture.loops.repeats import Item
from layergraph_capture.loops.turns import COUNT
from layergraph_capture.loops.written import ASSUME, CONTAINER, LEN, LENGTH, LOOP, Rolled


class NotFittedError(Exception):
    """No size explains an integer that differs between runs."""


@dataclass(frozen=True, slots=True, eq=False)
class Size:
    """A size on which loops depend.

    Attributes:
        value: its value in the record with loops.
        numbers: its number in each run.
        level: the level where it can be read.
        is_plain: whether code reads it as a plain number, on which it may branch.
    """

    value: TracedValue
    numbers: tuple[int, ...]
    level: _Level
    is_plain: bool = False


def fitted(runs: Sequence[Rolled], *, rounds_up: bool = True) -> list[Size]:
    """Replace integers that differ between records by sizes, in the first record.

    Args:
        runs: the records, which have the same loops.
        rounds_up: whether a partial turn counts as a turn.

    Returns:
        The sizes on which the record now depends. Their guards are removed.

    Raises:
        NotFittedError: no size explains an integer, or the runs differ in more than integers.
    """
    return _Fit(runs, rounds_up=rounds_up).fit()


class _Level:
    """A level of the record, which limits the readable values: the top level, or a body.

    Args:
        around: the level around a body; None for the top level.
        body: the body.
    """

    def __init__(self, around: _Level | None = None, body: TracedBody | None = None) -> None:
        self._around = around
        self._body = body
        self._inputs: dict[TracedValue, TracedValue] = {}

    def is_inside(self, other: _Level) -> bool:
        """Return whether this level is the other one, or a body inside it."""
        return self is other or (self._around is not None and self._around.is_inside(other))

    def read(self, size: Size) -> TracedValue:
        """Return the value of a size on this level, as an input of the body if necessary."""
        value = size.value
        if self is size.level or self._around is None or self._body is None:
            return value
        outside = self._around.read(size)
        if outside not in self._inputs:
            like = self._body.inputs[0]
            new = TracedValue(like.position, like.scope, value.wish)
            self._inputs[outside] = new
            self._body.inputs.append(new)
        return self._inputs[outside]

    @property
    def given(self) -> tuple[TracedValue, ...]:
        """Return the values outside that the body needs as further inputs."""
        return tuple(self._inputs)


class _Fit:
    def __init__(self, runs: Sequence[Rolled], *, rounds_up: bool) -> None:
        self._runs = runs
        self._rounds_up = rounds_up
        self._sizes: list[Size] = []

    def fit(self) -> list[Size]:
        self._scope([each.trace.root for each in self._runs], _Level())
        return self._sizes

    # --- items, those of all runs side by side ---

    def _scope(self, scopes: Sequence[ModuleCall], level: _Level) -> None:
        first = scopes[0]
        first.items = self._items([each.items for each in scopes], level, first)
        first.result = self._value([each.result for each in scopes], level, first, first.items)

    def _items(self, columns: Sequence[list[Item]], level: _Level, scope: ModuleCall) -> list[Item]:
        if len({len(each) for each in columns}) > 1:
            raise NotFittedError("they make another number of calls")
        written: list[Item] = []
        for items in zip(*columns, strict=True):
            first = items[0]
            if len({_called(item) for item in items}) > 1:
                raise NotFittedError("they make other calls")
            if isinstance(first, Call) and self._is_size(items, level):
                continue
            self._check_guards(items)
            glued: list[Item] = []
            if self._is_length(items, level, glued):
                written += glued
                continue
            if self._is_item_count(items, level, glued):
                written += [first, *glued]
                continue
            if first.args[1:] and isinstance(first, Call) and first.target == LOOP:
                self._note_sizes_inside(items, level, glued)
            bodies = [self._body(each, level) for each in self._bodies(items)]
            args = self._value([item.args for item in items], level, scope, glued)
            first.kwargs = self._value([item.kwargs for item in items], level, scope, glued)
            if bodies and isinstance(first, Call) and first.target == LOOP:
                args = (*args[:3], (*args[3], *bodies[0].given), *args[4:])
            first.args = args
            written += [*glued, first]
            if not isinstance(first, Call):
                self._scope([item for item in items if isinstance(item, ModuleCall)], level)
        return written

    def _check_guards(self, items: Sequence[Item]) -> None:
        """Raise if code reads a differing number as a plain one, on which it may branch."""
        expected = [
            item.args[1] for item in items if isinstance(item, Call) and item.target == ASSUME
        ]
        plain = [each for each in expected if not isinstance(each, TracedValue)]
        if any(repr(each) != repr(plain[0]) for each in plain):
            raise NotFittedError("code takes a plain number that is another one in another run")

    def _is_size(self, items: Sequence[Item], level: _Level) -> bool:
        """Return whether calls take a differing size as a number of turns; then record the size."""
        first = items[0]
        if not isinstance(first, Call) or first.target not in (COUNT, ASSUME):
            return False
        value = first.args[0]
        numbers = [item.args[1] for item in items]
        if not isinstance(value, TracedValue) or any(type(each) is not int for each in numbers):
            return False
        if len(set(numbers)) == 1:
            return False
        known = next((each for each in self._sizes if each.value is value), None)
        if known is None and self._explained(numbers, level) is not None:
            return False
        self._value([item.args[0] for item in items], level, value.scope, [])
        size = Size(value, tuple(numbers), level, first.target == ASSUME)
        if known is None:
            self._sizes.append(size)
        elif size.is_plain:
            # Code takes one size as a number of turns and as a plain number.
            self._sizes[self._sizes.index(known)] = replace(known, is_plain=True)
        return True

    def _is_length(self, items: Sequence[Item], level: _Level, glued: list[Item]) -> bool:
        """Return whether calls guard a differing length; if so, record the length as a size."""
        first = items[0]
        if not isinstance(first, Call) or first.target != LENGTH:
            return False
        numbers = [item.args[1] for item in items]
        if len(set(numbers)) == 1 or self._explained(numbers, level) is not None:
            # A guard compares it with the size, because sizes of two inputs may differ later.
            return False
        value = self._value([item.args[0] for item in items], level, first.value.scope, glued)
        if not isinstance(value, TracedValue):
            return False
        size = self._glued(LEN, (value,), first.value.scope, glued)
        self._sizes.append(Size(size, tuple(numbers), level))
        return True

    def _is_item_count(self, items: Sequence[Item], level: _Level, glued: list[Item]) -> bool:
        """Return whether calls guard a differing number of items of an argument.

        If so, let the guard take any number, and record the number as a size.
        """
        first = items[0]
        if not isinstance(first, Call) or first.target != CONTAINER:
            return False
        numbers = [item.args[2] for item in items]
        if any(type(each) is not int for each in numbers) or len(set(numbers)) == 1:
            return False
        if self._explained(numbers, level) is not None:
            # The guard compares it with that of another argument.
            return False
        container, kind, _, where = first.args
        scope = first.value.scope
        container = self._value([item.args[0] for item in items], level, scope, glued)
        first.args = container, kind, None, where
        size = self._glued(LEN, (container,), scope, glued)
        self._sizes.append(Size(size, tuple(numbers), level))
        return True

    def _note_sizes_inside(self, items: Sequence[Item], level: _Level, glued: list[Item]) -> None:
        """Record sizes that the body of a loop takes, or reads from its inputs.

        A loop such as ``while i < x.shape[1]`` reads the size in each turn.
        """
        turns = [item.args[1] for item in items]
        calls = [item for item in items if isinstance(item, Call)]
        if len(set(turns)) == 1 or self._explained(turns, level) or not calls:
            return
        # The values outside that the first turn reads.
        columns = [(*each.args[2], *each.args[3]) for each in calls]
        for values in zip(*columns, strict=True):
            # A loop such as ``while i > 0`` counts down from the size.
            numbers = self._differing(values, level)
            if numbers and isinstance(values[0], TracedValue):
                self._sizes.append(Size(values[0], numbers, level))
        bodies = [each.bodies[0] for each in calls]
        around = dict(zip(bodies[0].inputs[1:], columns[0], strict=True))
        for inner in zip(*[body.items for body in bodies], strict=True):
            first = inner[0]
            if not isinstance(first, Call) or first.kwargs:
                continue
            args = [
                around.get(arg, arg) if isinstance(arg, TracedValue) else arg for arg in first.args
            ]
            numbers = self._differing([getattr(each, "value", None) for each in inner], level)
            are_outside = all(
                arg in around.values() for arg in args if isinstance(arg, TracedValue)
            )
            if numbers and are_outside:
                size = self._glued(first.target, tuple(args), first.value.scope, glued)
                self._sizes.append(Size(size, numbers, level))

    def _differing(self, values: Sequence[Value], level: _Level) -> tuple[int, ...]:
        """Return the integers of values, one of each run, if they differ and no size explains them.

        Empty otherwise.
        """
        numbers = [each.number for each in values if isinstance(each, TracedValue)]
        known = [each for each in numbers if type(each) is int]
        is_new = len(known) == len(values) and len(set(known)) > 1
        return tuple(known) if is_new and self._explained(known, level) is None else ()

    def _bodies(self, items: Sequence[Item]) -> list[tuple[TracedBody, ...]]:
        of = [item.bodies if isinstance(item, Call) else () for item in items]
        return list(zip(*of, strict=True))

    def _body(self, bodies: tuple[TracedBody, ...], around: _Level) -> _Level:
        first = bodies[0]
        level = _Level(around, first)
        scope = first.inputs[0].scope
        first.items = self._items([each.items for each in bodies], level, scope)
        first.result = self._value([each.result for each in bodies], level, scope, first.items)
        return level

    # --- values, those of all runs side by side ---

    def _value(
        self, values: Sequence[Value], level: _Level, scope: ModuleCall, glued: list[Item]
    ) -> Value:
        first = values[0]
        if isinstance(first, TracedBody):
            return first
        if any(type(each) is not type(first) for each in values):
            raise NotFittedError("an argument is of another type")
        columns = [parts(each) for each in values]
        if columns[0] is None:
            return self._leaf(values, level, scope, glued)
        if len({len(each or ()) for each in columns}) > 1:
            raise NotFittedError("an argument has another length")
        if type(first) is dict and any(list(each) != list(first) for each in values):
            raise NotFittedError("an argument has other keys")
        inside = [self._value(each, level, scope, glued) for each in zip(*columns, strict=True)]
        return rebuilt(first, inside)

    def _leaf(
        self, values: Sequence[Value], level: _Level, scope: ModuleCall, glued: list[Item]
    ) -> Value:
        first = values[0]
        if isinstance(first, TracedValue):
            # The comparison of the record with each run finds any other value.
            return first
        if all(repr(each) == repr(first) for each in values):
            return first
        found = self._explained(values, level) if type(first) is int else None
        if found is None:
            raise NotFittedError(f"{first!r:.60} and {values[-1]!r:.60} are no sizes")
        size, line = found
        value = level.read(size)
        for name, number, neutral in line.steps():
            if number != neutral:
                value = self._glued(f"operator.{name}", (value, number), scope, glued)
        return value

    def _explained(self, numbers: Sequence[int], level: _Level) -> tuple[Size, _Line] | None:
        """Return a size that explains a number in all runs, with the expression."""
        for size in self._sizes:
            if level.is_inside(size.level):
                line = _line(size.numbers, numbers, rounds_up=self._rounds_up)
                if line is not None:
                    return size, line
        return None

    def _glued(
        self, target: str, args: tuple[Value, ...], scope: ModuleCall, glued: list[Item]
    ) -> TracedValue:
        result = TracedValue(scope.start, scope, wish_of(target))
        result.call = Call("function", target, args, {}, result)
        self._runs[0].glue.add(result.call)
        glued.append(result.call)
        return result


@dataclass(frozen=True, slots=True)
class _Line:
    """A number as an expression of a size: ``(factor * size + before) // divisor + after``."""

    factor: int = 1
    before: int = 0
    divisor: int = 1
    after: int = 0

    def of(self, size: int) -> int:
        """Return the number for a size."""
        return (self.factor * size + self.before) // self.divisor + self.after

    def steps(self) -> Iterator[tuple[str, int, int]]:
        """Yield each operation, its operand, and its neutral operand."""
        yield "mul", self.factor, 1
        yield "add", self.before, 0
        yield "floordiv", self.divisor, 1
        yield "add", self.after, 0


def _line(sizes: Sequence[int], numbers: Sequence[int], *, rounds_up: bool) -> _Line | None:
    """Return the expression that computes the numbers from the sizes; None if there is none."""
    pairs = zip(sizes[1:], numbers[1:], strict=True)
    steps = [(size - sizes[0], number - numbers[0]) for size, number in pairs if size != sizes[0]]
    if not steps or 0 in steps[0]:
        return None
    of_size, of_number = steps[0]
    if of_number % of_size == 0:
        factor = of_number // of_size
        line = _Line(factor, after=numbers[0] - factor * sizes[0])
    elif of_size % of_number == 0 and of_size // of_number > 0:
        divisor = of_size // of_number
        line = _Line(before=divisor - 1 if rounds_up else 0, divisor=divisor)
        line = replace(line, after=numbers[0] - line.of(sizes[0]))
    else:
        return None
    fits = all(line.of(one) == other for one, other in zip(sizes, numbers, strict=True))
    return line if fits else None


def _called(item: Item) -> tuple[str, ...]:
    return ("module", item.path) if isinstance(item, ModuleCall) else (item.kind, item.target)
