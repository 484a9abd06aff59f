"""Flattening of an IR to one level, in which the root calls each leaf."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from layergraph.errors import InvalidIrError, Place, Problem
from layergraph.ir.copying import copied_around
from layergraph.ir.from_nodes import graph_from_nodes
from layergraph.ir.graph import (
    BODY,
    FUNCTION,
    OUTPUT,
    STATE,
    Graph,
    Implementation,
    Node,
    returned,
)
from layergraph.ir.mapping import Implementations
from layergraph.ir.names import Namer
from layergraph.ir.values import Ref, Value, map_leaves, parts, refs
from layergraph_rewrite.inlining import CHOICE, GUARD, known_inputs

# The limit of a flat graph: _NODES, and _NODES_EACH more for each node of the IR. Without a limit,
# a short file of implementations that call each other twice would flatten to millions of nodes.
_NODES_EACH, _NODES = 100, 100_000


def flatten(ir: Implementations) -> list[Implementation]:
    """Return copies of the implementations of a checked IR; only root and bodies have a graph."""
    differs = any(implementation.evaluation is not None for implementation in ir.values())
    copies = []
    for each in ir.values():
        graph, evaluation = Graph(), None
        if each.nodes and (each.name == ir.root or each.type == BODY):
            graph = graph_from_nodes(_Flattening(ir, each.name, training=True).nodes())
            if differs:
                evaluation = graph_from_nodes(_Flattening(ir, each.name, training=False).nodes())
        copies.append(copied_around(each, graph, evaluation))
    return copies


_When: TypeAlias = tuple[Ref, bool] | None


@dataclass(slots=True)
class _Call:
    """A call that is being inlined.

    Attributes:
        name: the implementation.
        nodes: the remaining nodes.
        arguments: the arguments of all nodes.
        values: the flat-graph values of the inputs and of the earlier nodes.
        caller: the node that makes the call; None for the root.
        when: the condition of the call in the flat graph.
        result: the value that the call returns.
        partial: the nodes whose entry in ``values`` is valid only if their condition holds.
            Otherwise the node's value is None, but the entry may be another value.
        completed: for these nodes, flat-graph values that are None if the condition does not hold.
        conditions: for each node that is a condition, one that is None if the call does not run.
    """

    name: str
    nodes: Iterator[Node]
    arguments: dict[str, tuple[Value, ...]]
    values: dict[str, Value]
    caller: Node | None
    when: _When
    result: Value = None
    partial: dict[str, _When] = field(default_factory=dict)
    completed: dict[str, Value] = field(default_factory=dict)
    conditions: dict[str, Ref] = field(default_factory=dict)

    def substituted(self, node: Node, value: Any) -> Any:
        """Return an argument of a node with the values of the flat graph."""

        def leaf(each: Value) -> Value:
            if type(each) is not Ref:
                return each
            if each.node in self.completed and self.partial[each.node] != node.when:
                return self.completed[each.node]
            return self.values[each.node]

        return map_leaves(leaf, value)


class _Flattening:
    """The inlining of all calls into one graph, in one mode."""

    def __init__(self, ir: Implementations, top: str, *, training: bool) -> None:
        self._ir = ir
        self._top = top
        self._training = training
        self._namer = Namer()
        self._output = self._namer.name(OUTPUT)
        self._states: dict[str, Any] = {}
        self._has_bodies = any(each.type == BODY for each in ir.values())
        self._conditions: dict[str, _When] = {}
        # The nodes whose values depend on the way of the model: their rank may, too.
        self._of_ways: set[str] = set()
        self._calls: list[_Call] = []
        nodes = sum(len(graph.nodes) for each in ir.values() for graph in each.graphs)
        self._most = self._remaining = _NODES + _NODES_EACH * nodes

    def _spend(self, steps: int) -> None:
        self._remaining -= steps
        if self._remaining < 0:
            message = f"it comes to more than {self._most} nodes and values on one level"
            raise InvalidIrError([Problem(Place("the IR"), message, "keep its levels")])

    def _spend_on(self, args: tuple[Value, ...], given: tuple[Value, ...]) -> None:
        """Count the nested values that stand for references in the arguments of a node."""
        if any(parts(arg) is not None for arg in args):
            before = _count(given, sys.maxsize)
            self._spend(_count(args, self._remaining + 1 + before) - before)

    def nodes(self) -> Iterator[Node]:
        """Yield the nodes of the flat graph, in execution order."""
        self._begin(self._ir[self._top], {}, None, None)
        while self._calls:
            call = self._calls[-1]
            node = next(call.nodes, None)
            if node is None:
                self._calls.pop()
                if call.caller is not None:
                    self._note(self._calls[-1], call.caller, call.result)
                continue
            given = call.arguments[node.name]
            if call.partial:
                yield from self._complete(call, node, refs(*given, *node.sources()))
            when = yield from self._condition(call, node)
            args = call.substituted(node, given)
            kwargs = call.substituted(node, node.kwargs) if node.kwargs else {}
            if node.type == OUTPUT:
                call.result = returned(args)
                if parts(call.result) is not None:
                    self._spend(_count(call.result, self._remaining + 1))
                if len(self._calls) == 1:
                    name, args = self._output, (call.result,)
                    yield Node(name, OUTPUT, node.implementation, args, {}, node.data)
            elif node.is_call and self._ir[node.implementation].nodes:
                yield from self._call(call, node, args, kwargs, when)
            elif node.name not in call.values:
                yield from self._node(call, node, args, kwargs, when)

    def _graph(self, implementation: Implementation) -> Graph:
        return implementation if self._training else implementation.graphs[-1]

    def _begin(
        self,
        implementation: Implementation,
        values: dict[str, Value],
        caller: Node | None,
        when: _When,
    ) -> None:
        graph = self._graph(implementation)
        self._spend(len(graph.nodes))
        nodes = iter(list(graph.in_execution_order()))
        call = _Call(implementation.name, nodes, graph.arguments(), values, caller, when)
        self._calls.append(call)

    def _call(
        self,
        call: _Call,
        node: Node,
        args: tuple[Value, ...],
        kwargs: dict[str, Value],
        when: _When,
    ) -> Iterator[Node]:
        callee = self._ir[node.implementation]
        place = Place("implementation", call.name).at("node", node.name)
        graph = self._graph(callee)
        values = _bound(graph, callee.name, place, args, kwargs)
        for each, facts in known_inputs(graph.nodes.values()) if self._of_ways else ():
            value = values[each]
            if type(value) is Ref and value.node in self._of_ways:
                self._spend(1)
                guard = self._namer.name("assume_tensor")
                yield Node(guard, FUNCTION, GUARD, (value, *facts), when=when)
                self._conditions[guard] = when
        self._begin(callee, values, node, when)

    def _node(
        self,
        call: _Call,
        node: Node,
        args: tuple[Value, ...],
        kwargs: dict[str, Value],
        when: _When,
    ) -> Iterator[Node]:
        known = _element(node, args)
        if node.type == STATE and not args:
            known = self._states.get(node.implementation, _UNKNOWN)
        if known is not _UNKNOWN:
            self._note(call, node, known)
            return
        wish = node.implementation if node.is_call or node.type == STATE else node.name
        name = self._namer.name(wish)
        when = when if node.type != STATE or args else None
        given = (*call.arguments[node.name], *node.kwargs.values())
        self._spend_on((*args, *kwargs.values()), given)
        yield Node(name, node.type, node.implementation, args, kwargs, node.data, when)
        if node.implementation == CHOICE or (
            self._of_ways and not self._of_ways.isdisjoint(refs(*args, *kwargs.values()))
        ):
            self._of_ways.add(name)
        ref = call.values[node.name] = Ref(name)
        self._conditions[name] = when
        if node.type == STATE:
            self._states[node.implementation] = _UNKNOWN if node.sets_state else ref
        elif self._has_bodies and node.bodies():
            self._states.clear()  # a body may set states

    def _note(self, call: _Call, node: Node, value: Value) -> None:
        """Record the value of a node that is not in the flat graph."""
        call.values[node.name] = value
        if node.when is not None:
            condition, expected = node.when
            if not self._follows(value, (call.conditions[condition.node], expected)):
                call.partial[node.name] = node.when

    def _condition(self, call: _Call, node: Node) -> Generator[Node, None, _When]:
        """Return the condition of a node in the flat graph: its own, and that of the call."""
        if node.when is None:
            return call.when
        condition, expected = node.when
        if condition.node not in call.conditions:
            value = call.substituted(node, condition)
            if type(value) is not Ref or not self._follows(value, call.when):
                value = yield from self._choose(call, value, True, False)
            call.conditions[condition.node] = value
        return call.conditions[condition.node], expected

    def _complete(self, call: _Call, node: Node, reads: list[str]) -> Iterator[Node]:
        """Yield the ``choose`` nodes that complete partial values which a node reads."""
        for name in reads:
            partial = call.partial.get(name)
            if partial is None or partial == node.when or name in call.completed:
                continue
            condition, expected = partial
            value = call.values[name]
            ways = (value, None) if expected else (None, value)
            completed = yield from self._choose(call, call.conditions[condition.node], *ways)
            call.completed[name] = completed

    def _choose(
        self, call: _Call, condition: Value, if_true: Value, if_false: Value
    ) -> Generator[Node, None, Ref]:
        self._spend(1)
        name = self._namer.name("choose")
        args = condition, if_true, if_false
        self._spend_on(args, ())
        yield Node(name, FUNCTION, "layergraph.choose", args, when=call.when)
        self._conditions[name] = call.when
        return Ref(name)

    def _follows(self, value: Value, when: _When) -> bool:
        """Return whether a value is None if a condition does not hold."""
        if when is None or value is None:
            return True
        return type(value) is Ref and self._conditions[value.node] == when


_UNKNOWN: Any = object()


def _count(value: Value, most: int) -> int:
    """Count the values inside a nested value, up to a limit, because it may share parts."""
    count, stack = 0, [value]
    while stack and count < most:
        count += 1
        stack += parts(stack.pop()) or ()
    return count


def _bound(
    graph: Graph, callee: str, place: Place, args: tuple[Value, ...], kwargs: dict[str, Value]
) -> dict[str, Value]:
    names = graph.parameters()
    values = dict(zip(names, args, strict=False))
    by_parameter = {parameter: name for name, parameter in names.items()}
    for parameter, value in kwargs.items():
        values[by_parameter.get(parameter, parameter)] = value
    if len(args) > len(names) or values.keys() != names.keys():
        raise InvalidIrError(
            [
                Problem(
                    place,
                    f"its arguments are not those that {callee!r} takes",
                    f"give one for each of {', '.join(names.values()) or 'no inputs'}",
                )
            ]
        )
    return values


def _element(node: Node, args: tuple[Value, ...]) -> Value:
    """Return the element that a ``getitem`` node takes from a tuple of known values."""
    if node.implementation == "operator.getitem" and len(args) == 2:
        whole, index = args
        if type(whole) is tuple and type(index) is int and -len(whole) <= index < len(whole):
            return whole[index]
    return _UNKNOWN
