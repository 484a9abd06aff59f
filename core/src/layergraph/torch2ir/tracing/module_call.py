"""The recorded calls of one run of a model, nested by module call."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from layergraph.ir import Symbol, Value
from layergraph.ir.values import leaves
from layergraph.torch2ir.tracing.lines import Place

if TYPE_CHECKING:
    from layergraph.torch2ir.state.changes import Change
    from layergraph.torch2ir.tracing.other_mode import OtherMode

Kind = Literal["function", "module", "state", "same", "mode"]
Fact = Literal["rank", "dtype"]
Condition = tuple["TracedValue", bool]
"""The value of a decision, and the answer for which a call is made."""


@dataclass(slots=True, eq=False)
class TracedValue:
    """A value that the model computes or gets as an input.

    Attributes:
        position: its place in the order of all values and calls of the capture.
        scope: the module call that computes it.
        wish: the preferred name of its node.
        rank: the number of its dimensions; None if it is no tensor, or unknown.
        dtype: its dtype; None if it is no tensor, or unknown.
        call: the call that returned it; None for an input of the model.
        number: its integer in this run; None if it is no integer, or unknown.
    """

    position: int
    scope: ModuleCall
    wish: str
    rank: int | None = None
    dtype: Symbol | None = None
    call: Call | None = None
    number: int | None = None


def values_in(*plain: Value) -> list[TracedValue]:
    """Return the traced values in nested literals, in order."""
    return [leaf for leaf in leaves(*plain) if isinstance(leaf, TracedValue)]


@dataclass(frozen=True, slots=True)
class StateRead:
    """A tensor of the model: a parameter, a buffer or a constant.

    Attributes:
        key: its key in the state dict, or the key that it would have there.
    """

    key: str


@dataclass(frozen=True, slots=True)
class ModeRead:
    """A read of the mode (``training``) of a module.

    Attributes:
        path: the path of the module.
    """

    path: str


@dataclass(frozen=True, slots=True)
class FunctionRead:
    """A function of the model that is an argument of a higher-order function of torch.

    Attributes:
        scope: its calls on sample arguments.
    """

    scope: ModuleCall

    def __repr__(self) -> str:
        """Return a text that is unique to this function."""
        return f"function {self.scope.function} {self.scope.start} {id(self.scope)}"


def functions_in(*plain: Value) -> list[ModuleCall]:
    """Return the functions in nested literals, in order."""
    return [leaf.scope for leaf in leaves(*plain) if isinstance(leaf, FunctionRead)]


@dataclass(slots=True, eq=False, repr=False)
class TracedBody:
    """The body of a loop: calls that a function repeats, passed to that function as an argument.

    The calls read only the inputs of the body and the results of each other.

    Attributes:
        wish: the preferred name of the body.
        inputs: the values that it takes.
        items: the calls and module calls in it, in order.
        result: its result, as a literal.
    """

    wish: str
    inputs: list[TracedValue]
    items: list[Call | ModuleCall]
    result: Value


# A call refers to the calls before it, so the text of one would hold those of all: repr=False.
@dataclass(slots=True, eq=False, repr=False)
class Call:
    """One call of a function or of a leaf.

    Attributes:
        kind: ``function``; ``module``; ``state``: a tensor of the model that is passed on,
            or set to its argument;
            ``same``: an argument that a module call returns unchanged; ``mode``: a module's mode
            that Python code reads, with the value as its argument.
        target: the name of the function, the path of the module, the key of the tensor.
        args: literals that may contain :class:`TracedValue`, :class:`StateRead`,
            :class:`ModeRead`, :class:`TracedBody` and :class:`FunctionRead`.
        kwargs: the keyword arguments, in the same form.
        value: its result.
        where: the line of the model's code, for kind ``mode``.
        when: the condition under which the call is made; None if it always is.
        is_late: whether a :class:`DeferredCall` added it.
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


@dataclass(slots=True, eq=False, repr=False)
class DeferredCall:
    """A place in the sequence where the tracer may insert calls later.

    The model reads many sizes and elements that it never uses. Each read keeps such a place; the
    tracer inserts the call that reads the size or element when something uses it.

    Attributes:
        position: its place in the order of the capture.
        scope: its module call.
        calls: the inserted calls, by their keys.
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
        *,
        is_late: bool = True,
    ) -> TracedValue:
        """Return the value of a call at this place; insert the call if it is not there."""
        if key not in self.calls:
            value = TracedValue(self.position, self.scope, wish_of(target))
            call = Call(kind, target, args, kwargs or {}, value, is_late=is_late)
            value.call = self.calls[key] = call
        return self.calls[key].value


@dataclass(slots=True, eq=False, repr=False)
class ModuleCall:
    """One call of a composite, or of a function that is an argument of a call.

    A function stands before the call that takes it, in the same module call.

    Attributes:
        kind: says, as that of a :class:`Call`, that this is no call of a function or a layer.
        bodies: none, as a :class:`Call` has some.
        path: the path of the module.
        parent: the module call around it; None for the call of the model.
        start: the first position inside.
        end: the first position after.
        depth: how many module calls are around it.
        parameters: the parameter name of each positional argument.
        args: the positional arguments, as literals.
        kwargs: the keyword arguments, as literals.
        result: the result, as a literal.
        items: the calls and module calls inside, in order.
        late: the deferred calls, each with the number of items before it.
        known: the facts of tensors that the code inside reads and that differ between inputs:
            ``rank``, ``dtype``.
        when: the condition under which the call is made; None if it always is.
        function: the name of the function; empty for a module call.
    """

    kind: ClassVar[str] = "module call"
    bodies: ClassVar[tuple[TracedBody, ...]] = ()
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
        """Return whether a call inside computed the value."""
        return self.start <= value.position < self.end

    def settle(self) -> None:
        """Move the calls of the deferred calls into the sequence."""
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
    """Return the preferred node name of a call, from the name of its target."""
    wish = target.rpartition(".")[2]
    return wish.strip("_") if wish.startswith("__") else wish


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument of the model.

    Attributes:
        name: its name.
        value: its value in the graph.
        default: a tuple with its default; empty if the argument is required.
        fixed: a tuple with its value at capture, as a literal; empty for tensors.
        by_name: whether it is keyword-only.
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
    """A question whose answer selects the code that the model runs, such as ``if mask.all()``.

    Attributes:
        condition: the value that computes the answer.
        answer: the answer in this run.
        where: the line of the model's code that branches.
        place: this line with those that call it.
        is_by_size: whether the question compares a size of a tensor.
        is_branch: whether the sizes are equal in the example.
        is_guard: whether only the way of this answer counts, because the run asks more such
            questions than a graph holds.
    """

    condition: TracedValue
    answer: bool
    where: str
    place: Place
    is_by_size: bool = False
    is_branch: bool = False
    is_guard: bool = False


@dataclass(slots=True)
class Trace:
    """The record of one run, or of the runs along several ways.

    Attributes:
        root: the call of the model.
        constants: tensors that the model reads but has not registered, by key.
        parameters: the arguments of the model, in order.
        other: the differences of the other mode; None if unknown.
        is_other_refused: whether a capture in the other mode has failed.
        decisions: the decisions of the run, in order.
        kept: the values of tensors that the model caches for later calls, by ``id``.
        in_other_mode: the separate record of the other mode; None if there is none.
        changes: the changes that the model's code made to objects that outlive the run.
        least_turns: the least number of loop iterations in which a run shows every use of a list.
        scopes: every module call, inner ones first.
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
        """Move the calls of the deferred calls into the sequence."""
        for scope in self.scopes:
            scope.settle()
        return self


def with_bodies(items: Sequence[Call | ModuleCall]) -> Iterator[Call | ModuleCall]:
    """Return an iterator of items, and before each call of the items in its bodies."""
    # Nearly all sequences have no bodies.
    return _with_bodies(items) if any(map(_BODIES, items)) else iter(items)


_BODIES = operator.attrgetter("bodies")


def _with_bodies(items: Sequence[Call | ModuleCall]) -> Iterator[Call | ModuleCall]:
    for item in items:
        for body in item.bodies:
            yield from with_bodies(body.items)
        yield item


def inside_out(root: ModuleCall) -> Iterator[ModuleCall]:
    """Yield a module call and all module calls inside it, inner ones first."""
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
    """Yield the calls of a module call and of all module calls inside it, in order."""
    stack = [with_bodies(root.items)]
    while stack:
        for item in stack[-1]:
            if isinstance(item, ModuleCall):
                stack.append(with_bodies(item.items))
                break
            yield item
        else:
            stack.pop()
