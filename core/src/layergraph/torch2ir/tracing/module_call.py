"""The calls of one run of a model, each in the module call in which it happened."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from layergraph.ir import Symbol, Value
from layergraph.ir.values import leaves

if TYPE_CHECKING:
    from layergraph.torch2ir.state.changes import Change
    from layergraph.torch2ir.tracing.other_mode import OtherMode

Kind = Literal["function", "module", "state", "same", "mode"]
Fact = Literal["rank", "dtype"]
Condition = tuple["TracedValue", bool]
"""A value by which a model decides, and the way on which something happens."""


@dataclass(slots=True, eq=False)
class TracedValue:
    """Something that the model computes, or is given.

    Attributes:
        position: when it came about, counted over the whole capture.
        scope: the module call in which it came about.
        wish: what a node of it would be called.
        rank: the number of its dimensions; None if it is no tensor, or the capture cannot know.
        dtype: its dtype, likewise.
        call: what gave it; None if it was given to the model.
        number: the integer that it is in this run, if it is one and known.
    """

    position: int
    scope: ModuleCall
    wish: str
    rank: int | None = None
    dtype: Symbol | None = None
    call: Call | None = None
    number: int | None = None


def values_in(*plain: Value) -> list[TracedValue]:
    """The values in nested plain values, in order."""
    return [leaf for leaf in leaves(*plain) if isinstance(leaf, TracedValue)]


@dataclass(frozen=True, slots=True)
class StateRead:
    """A tensor of the model: a parameter, a buffer or a constant.

    Attributes:
        key: its key in the state dict, or where a state dict would have it.
    """

    key: str


@dataclass(frozen=True, slots=True)
class ModeRead:
    """A read of the mode of a module: whether it trains.

    Attributes:
        path: the path of the module.
    """

    path: str


@dataclass(frozen=True, slots=True)
class FunctionRead:
    """A function of the model's code that a function of torch is given, and runs.

    Attributes:
        scope: what it did on a sample of its arguments.
    """

    scope: ModuleCall

    def __repr__(self) -> str:
        """Return a text that no other function has."""
        return f"function {self.scope.function} {self.scope.start} {id(self.scope)}"


def functions_in(*plain: Value) -> list[ModuleCall]:
    """The functions in nested plain values, in order."""
    return [leaf.scope for leaf in leaves(*plain) if isinstance(leaf, FunctionRead)]


@dataclass(slots=True, eq=False)
class TracedBody:
    """Calls that a function makes any number of times: an argument of the call of this function.

    They read the inputs of the body, and what they give themselves, but nothing else.

    Attributes:
        wish: what the body would be called.
        inputs: the values that it takes.
        items: the calls and module calls in it, in order.
        result: what it returns, lowered.
    """

    wish: str
    inputs: list[TracedValue]
    items: list[Call | ModuleCall]
    result: Value


@dataclass(slots=True, eq=False)
class Call:
    """One call of a function or of a leaf.

    Attributes:
        kind: ``function``; ``module``; ``state``: a tensor of the model that is passed on;
            ``same``: its argument, given back by a module call that it was given to; ``mode``: a
            module's mode that Python code reads, with the value as its argument.
        target: the name of the function, the path of the module, the key of the tensor.
        args: lowered: plain values in which :class:`TracedValue`, :class:`StateRead`,
            :class:`ModeRead`, :class:`TracedBody` and :class:`FunctionRead` may stand.
        kwargs: likewise.
        value: what it gives.
        where: the line of the model's code, for kind ``mode``.
        when: the condition under which the call is made; None if it always is.
        is_late: whether it stands in a place that was kept: see :class:`DeferredCall`.
        bodies: the bodies among its arguments.
    """

    kind: Kind
    target: str
    args: tuple[Value, ...]
    kwargs: dict[str, Value]
    value: TracedValue
    where: str = ""
    when: Condition | None = None
    is_late: bool = False
    bodies: tuple[TracedBody, ...] = ()

    def reads(self) -> list[TracedValue]:
        """Return the values that the call reads."""
        return values_in(*self.args, *self.kwargs.values(), *(self.when or ()))


@dataclass(slots=True, eq=False)
class DeferredCall:
    """A place in the sequence at which calls may be needed: to read a size, or a part of a value.

    What a model reads in passing is recorded where it was read, but only if it turns out to be
    used.

    Attributes:
        position: when.
        scope: in which module call.
        calls: those that were needed, by what they give.
    """

    position: int
    scope: ModuleCall
    calls: dict[Hashable, Call] = field(default_factory=dict)

    def call(
        self,
        key: Hashable,
        target: str,
        args: tuple[Value, ...],
        kwargs: dict[str, Value] | None = None,
        kind: Kind = "function",
    ) -> TracedValue:
        """The value of a call at this place; the call is made if it was not."""
        if key not in self.calls:
            value = TracedValue(self.position, self.scope, wish_of(target))
            call = Call(kind, target, args, kwargs or {}, value, is_late=True)
            value.call = self.calls[key] = call
        return self.calls[key].value


@dataclass(slots=True, eq=False)
class ModuleCall:
    """One call of a module that is traced through, or a function that a call is given.

    A function stands before the call. It belongs to the module call around it.

    Attributes:
        path: the path of the module.
        parent: the module call around it; None for that of the model.
        start: the first position inside.
        end: the first position after.
        depth: how many module calls are around it.
        parameters: the name under which each argument was given, argument by argument.
        args: lowered.
        kwargs: lowered.
        result: lowered.
        items: the calls and module calls inside, in order.
        late: places that were kept, each with the number of the items before it.
        known: what the code inside asked of tensors that another input could answer otherwise:
            ``rank``, ``dtype``.
        when: the condition under which the call is made; None if it always is.
        function: what a function is called; empty for a module call.
    """

    path: str
    parent: ModuleCall | None
    start: int
    end: int = -1
    depth: int = 0
    parameters: tuple[str, ...] = ()
    args: tuple[Value, ...] = ()
    kwargs: dict[str, Value] = field(default_factory=dict)
    result: Value = None
    items: list[Call | ModuleCall] = field(default_factory=list)
    late: list[tuple[int, DeferredCall]] = field(default_factory=list)
    known: set[Fact] = field(default_factory=set)
    when: Condition | None = None
    function: str = ""

    def reads(self) -> list[TracedValue]:
        """Return the values that the caller reads for the call."""
        return values_in(*self.args, *self.kwargs.values(), *(self.when or ()))

    def contains(self, value: TracedValue) -> bool:
        """Return whether the value came about inside."""
        return self.start <= value.position < self.end

    def settle(self) -> None:
        """Put the calls that were needed in the places that were kept for them."""
        if not self.late:
            return
        items: list[Call | ModuleCall] = []
        done = 0
        for count, late in self.late:
            items += self.items[done:count]
            items += _in_order([*late.calls.values()])
            done = count
        self.items = items + self.items[done:]
        self.late = []


def _in_order(calls: list[Call]) -> list[Call]:
    """Return reads of parts of one value in the order of the parts, and others as they are.

    The order in which code uses the parts does not matter, and a loop goes through them in theirs.
    """
    if len(calls) < 2 or any(
        each.target != "operator.getitem"
        or each.args[0] is not calls[0].args[0]
        or type(each.args[1]) is not int
        for each in calls
    ):
        return calls
    return sorted(calls, key=lambda each: each.args[1])


def wish_of(target: str) -> str:
    """The name that a node of a call would have, by the name of what is called."""
    wish = target.rpartition(".")[2]
    return wish.strip("_") if wish.startswith("__") else wish


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument of the model.

    Attributes:
        name: its name.
        value: what the graph gets.
        default: in a tuple, what it is where it is not given; empty if it has to be given.
        fixed: in a tuple, the plain value that it was captured with; empty for tensors.
        by_name: whether a call can give it by its name only.
    """

    name: str
    value: TracedValue
    default: tuple[Value, ...] = ()
    fixed: tuple[Value, ...] = ()
    by_name: bool = False

    def said(self) -> dict[str, Value]:
        """Return the attributes of the input's node."""
        said = {"default": self.default, "fixed": self.fixed}
        return {key: known[0] for key, known in said.items() if known}


@dataclass(frozen=True, slots=True)
class Decision:
    """A question about numbers of the inputs, by which the model goes one way or another.

    Attributes:
        condition: the value of the question, True or False.
        answer: the way that the run went.
        where: the line of the model's code that asks.
        is_by_size: whether the question is for a size of a tensor instead.
    """

    condition: TracedValue
    answer: bool
    where: str
    is_by_size: bool = False


@dataclass(slots=True)
class Trace:
    """The record of one run, or of several runs that went different ways.

    Attributes:
        root: the call of the model.
        constants: tensors that the model reads but has not registered, by key.
        parameters: the arguments of the model, in order.
        other: what the other mode does; None if that is not known.
        is_other_refused: whether it is known that the other mode cannot be captured.
        decisions: the decisions of the run, in order.
        kept: the values of the tensors that the model keeps for later calls, by ``id``.
        in_other_mode: the record of the other mode where that is a record of its own; or None.
        changes: the changes that the model's code made to what outlives the run.
        least_turns: the turns that loops need before a run shows all that code does with lists.
        scopes: every module call, those inside before those around them.
    """

    root: ModuleCall
    constants: dict[str, torch.Tensor]
    parameters: list[Parameter]
    other: OtherMode | None = None
    is_other_refused: bool = False
    decisions: list[Decision] = field(default_factory=list)
    kept: dict[int, TracedValue] = field(default_factory=dict)
    in_other_mode: Trace | None = None
    changes: list[Change] = field(default_factory=list)
    least_turns: int = 0
    scopes: list[ModuleCall] = field(init=False)

    def __post_init__(self) -> None:
        self.scopes = list(inside_out(self.root))

    def settle(self) -> Trace:
        """Put the calls that were needed in the places that were kept for them."""
        for scope in self.scopes:
            scope.settle()
        return self


def with_bodies(items: Iterable[Call | ModuleCall]) -> Iterator[Call | ModuleCall]:
    """Yield items, and before each call the items in its bodies."""
    for item in items:
        if isinstance(item, Call) and item.bodies:
            for body in item.bodies:
                yield from with_bodies(body.items)
        yield item


def inside_out(root: ModuleCall) -> Iterator[ModuleCall]:
    """A module call and all that are inside it, these before those around them."""
    stack = [(root, with_bodies(root.items))]
    while stack:
        scope, items = stack[-1]
        for item in items:
            if isinstance(item, ModuleCall):
                stack.append((item, with_bodies(item.items)))
                break
        else:
            stack.pop()
            yield scope


def calls_in(root: ModuleCall) -> Iterator[Call]:
    """The calls in a module call and in all that are inside it, in order."""
    stack = [with_bodies(root.items)]
    while stack:
        item = next(stack[-1], None)
        if item is None:
            stack.pop()
        elif isinstance(item, ModuleCall):
            stack.append(with_bodies(item.items))
        else:
            yield item


def named_value(leaf: Value) -> Value:
    """A name for a value of a run, which no other value has; any other leaf as it is."""
    return f"value {leaf.position} {id(leaf)}" if isinstance(leaf, TracedValue) else leaf
