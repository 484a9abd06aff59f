"""The steps of a method: the nodes of a graph, or of the graphs of both modes side by side."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from layergraph.ir import INPUT, Graph, Node, Ref, Value, refs
from layergraph.ir.values import parts, rebuilt


@dataclass(frozen=True, slots=True)
class ByMode:
    """A value that differs by the mode of the module."""

    training: Value
    evaluation: Value


@dataclass(slots=True)
class Step:
    """One node of a method.

    Attributes:
        node: the node.
        args: its positional arguments.
        kwargs: its arguments by name.
        mode: the mode in which it runs; None for both.
        when: its condition, as in the node.
        evaluation: of an input, its known facts in evaluation mode, if they differ.
    """

    node: Node
    args: tuple[Value, ...]
    kwargs: dict[str, Value] = field(default_factory=dict)
    mode: bool | None = None
    when: tuple[Ref, bool] | None = None
    evaluation: dict[str, Value] | None = None

    @property
    def reads(self) -> list[str]:
        """Return the nodes that it reads."""
        return refs(*_flat(self.args), *_flat(tuple(self.kwargs.values())), *(self.when or ()))


def _flat(values: tuple[Value, ...]) -> Iterator[Value]:
    for value in values:
        inside = (value.training, value.evaluation) if type(value) is ByMode else parts(value)
        if inside is None:
            yield value
        else:
            yield from _flat(tuple(inside))


def steps_of(graph: Graph, evaluation: Graph | None = None) -> list[Step]:
    """Return the steps of a graph in order; with two graphs, those of both modes, merged.

    In each mode, the steps that run are the nodes of that mode's graph, in their order.
    """
    training = _listed(graph)
    if evaluation is None:
        return training
    other = _listed(evaluation)
    matcher = difflib.SequenceMatcher(
        a=[_key(each) for each in training], b=[_key(each) for each in other], autojunk=False
    )
    found: list[Step] = []
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            for one, two in zip(training[a:b], other[c:d], strict=True):
                found += _merged(one, two)
        else:
            found += [_in_mode(each, True) for each in training[a:b]]
            found += [_in_mode(each, False) for each in other[c:d]]
    return found


def _listed(graph: Graph) -> list[Step]:
    arguments = graph.arguments()
    return [
        Step(node, arguments[node.name], dict(node.kwargs), when=node.when)
        for node in graph.in_execution_order()
    ]


def _key(step: Step) -> tuple[object, ...]:
    node = step.node
    return node.name, node.type, node.implementation, str(step.when), len(step.args)


def _in_mode(step: Step, training: bool) -> Step:
    step.mode = training
    return step


class _DifferError(Exception):
    pass


def _merged(one: Step, two: Step) -> list[Step]:
    """Return one step for both modes, or one for each."""
    if one.node.type == INPUT and _default(one) == _default(two):
        other = None if repr(one.kwargs) == repr(two.kwargs) else two.kwargs
        return [Step(one.node, one.args, one.kwargs, evaluation=other)]
    if one.node.type == INPUT or list(one.kwargs) != list(two.kwargs):
        return [_in_mode(one, True), _in_mode(two, False)]
    try:
        args = tuple(_both(*pair) for pair in zip(one.args, two.args, strict=True))
        kwargs = {name: _both(value, two.kwargs[name]) for name, value in one.kwargs.items()}
    except _DifferError:
        return [_in_mode(one, True), _in_mode(two, False)]
    return [Step(one.node, args, kwargs, None, one.when)]


def _default(step: Step) -> str:
    return repr(step.kwargs.get("default", Ref("")))


def _both(one: Value, two: Value) -> Value:
    if repr(one) == repr(two):
        return one
    if type(one) is bool and type(two) is bool:
        return ByMode(one, two)
    inside, others = parts(one), parts(two)
    if type(one) is not type(two) or inside is None or others is None:
        raise _DifferError
    if len(inside) != len(others) or (type(one) is dict and list(one) != list(two)):
        raise _DifferError
    return rebuilt(one, [_both(*pair) for pair in zip(inside, others, strict=True)])


def end_of_run(steps: Sequence[Step], at: int, key: Callable[[Step], object]) -> int:
    """Return the end of the run of steps with an equal key that starts at an index."""
    wanted = key(steps[at])
    is_mode = steps[at].mode is not None
    end = at
    while end < len(steps) and (
        steps[end].mode is not None if is_mode else key(steps[end]) == wanted
    ):
        end += 1
    return end
