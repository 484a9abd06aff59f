"""Flattening an IR: its one-level form, in which the root calls each leaf."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from layergraph.errors import InvalidIrError, Place, Problem
from layergraph.ir.copying import copied_around
from layergraph.ir.graph import (
    OUTPUT,
    STATE,
    Graph,
    Implementation,
    Node,
    graph_from_nodes,
    returned,
)
from layergraph.ir.mapping import Implementations
from layergraph.ir.names import Namer
from layergraph.ir.values import Ref, Value, map_leaves, parts

# The limit of a flat graph: _NODES, and _NODES_EACH more for each node of the IR. Without a limit,
# a short file of implementations that call each other twice would flatten to millions of nodes.
_NODES_EACH, _NODES = 100, 100_000


def flatten(ir: Implementations) -> list[Implementation]:
    """Return copies of the implementations of a checked IR, of which only the root has a graph."""
    root = ir[ir.root]
    graph = graph_from_nodes(_Flattening(ir, training=True).nodes()) if root.nodes else Graph()
    evaluation = None
    if any(implementation.evaluation is not None for implementation in ir.values()):
        evaluation = graph_from_nodes(_Flattening(ir, training=False).nodes())
    return [
        copied_around(each, graph, evaluation) if each is root else copied_around(each, _NO_GRAPH)
        for each in ir.values()
    ]


_NO_GRAPH = Graph()


@dataclass(slots=True)
class _Call:
    """A call that is being inlined: its remaining nodes, and the values of those before."""

    name: str
    nodes: Iterator[Node]
    arguments: dict[str, tuple[Value, ...]]
    values: dict[str, Value]
    caller: str
    result: Value = None


class _Flattening:
    """The inlining of all calls into one graph, in one mode."""

    def __init__(self, ir: Implementations, *, training: bool) -> None:
        self._ir = ir
        self._training = training
        self._namer = Namer()
        self._output = self._namer.name(OUTPUT)
        self._states: dict[str, Ref] = {}
        self._calls: list[_Call] = []
        nodes = sum(len(graph.nodes) for each in ir.values() for graph in each.graphs)
        self._most = self._remaining = _NODES + _NODES_EACH * nodes

    def _spend(self, steps: int) -> None:
        self._remaining -= steps
        if self._remaining < 0:
            message = f"it comes to more than {self._most} nodes and values on one level"
            raise InvalidIrError([Problem(Place("the IR"), message, "keep its levels")])

    def nodes(self) -> Iterator[Node]:
        """Yield the nodes of the flat graph, in execution order."""
        self._begin(self._ir[self._ir.root], {}, "")
        while self._calls:
            call = self._calls[-1]
            node = next(call.nodes, None)
            if node is None:
                self._calls.pop()
                if self._calls:
                    self._calls[-1].values[call.caller] = call.result
                continue
            args = _substituted(call, call.arguments[node.name])
            kwargs = _substituted(call, node.kwargs) if node.kwargs else {}
            if node.type == OUTPUT:
                call.result = returned(args)
                if parts(call.result) is not None:
                    self._spend(_count(call.result, self._remaining + 1))
                if len(self._calls) == 1:
                    name, args = self._output, (call.result,)
                    yield Node(name, OUTPUT, node.implementation, args, {}, node.data)
            elif node.is_call and self._ir[node.implementation].nodes:
                self._call(call, node, args, kwargs)
            elif node.name not in call.values:
                yield from self._node(call, node, args, kwargs)

    def _graph(self, implementation: Implementation) -> Graph:
        return implementation if self._training else implementation.graphs[-1]

    def _begin(self, implementation: Implementation, values: dict[str, Value], caller: str) -> None:
        graph = self._graph(implementation)
        self._spend(len(graph.nodes))
        nodes = iter(list(graph.in_execution_order()))
        call = _Call(implementation.name, nodes, graph.arguments(), values, caller)
        self._calls.append(call)

    def _call(
        self, call: _Call, node: Node, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> None:
        callee = self._ir[node.implementation]
        place = Place("implementation", call.name).at("node", node.name)
        values = _bound(self._graph(callee), callee.name, place, args, kwargs)
        self._begin(callee, values, node.name)

    def _node(
        self, call: _Call, node: Node, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> Iterator[Node]:
        known = _element(node, args)
        if node.type == STATE:
            known = self._states.get(node.implementation, _UNKNOWN)
        if known is not _UNKNOWN:
            call.values[node.name] = known
            return
        wish = node.implementation if node.is_call or node.type == STATE else node.name
        name = self._namer.name(wish)
        flat = Node(name, node.type, node.implementation, args, kwargs, node.data)
        ref = call.values[node.name] = Ref(name)
        if node.type == STATE:
            self._states[node.implementation] = ref
        yield flat


_UNKNOWN: Any = object()


def _count(value: Value, most: int) -> int:
    """Count the values inside a nested value, at most to a limit, because it may repeat itself."""
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


def _substituted(call: _Call, value: Any) -> Any:
    return map_leaves(lambda leaf: call.values[leaf.node] if type(leaf) is Ref else leaf, value)


def _element(node: Node, args: tuple[Value, ...]) -> Value:
    """Return the element that a ``getitem`` node takes from a tuple of known values."""
    if node.implementation == "operator.getitem" and len(args) == 2:
        whole, index = args
        if type(whole) is tuple and type(index) is int and -len(whole) <= index < len(whole):
            return whole[index]
    return _UNKNOWN
