"""The one-level form of an IR."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from layergraph.errors import InvalidIrError, Problem
from layergraph.ir.graph import INPUT, OUTPUT, STATE, Graph, Implementation, Node, returned, wired
from layergraph.ir.model import Ir
from layergraph.ir.names import Namer
from layergraph.ir.values import Ref, Value, map_leaves


def flatten(ir: Ir) -> Ir:
    """See :meth:`Ir.flatten`."""
    root = ir[ir.root]
    if not root.nodes:
        return ir
    graph = wired(_inlined(ir, root, training=True))
    evaluation = None
    if any(implementation.evaluation is not None for implementation in ir.values()):
        evaluation = wired(_inlined(ir, root, training=False))
    return Ir(
        [
            replace(implementation, nodes=graph.nodes, edges=graph.edges, evaluation=evaluation)
            if implementation is root
            else replace(implementation, nodes={}, edges={}, evaluation=None)
            for implementation in ir.values()
        ],
        ir.root,
    )


@dataclass(slots=True)
class _Call:
    """A graph on its way into the root's, with the values that its nodes have there."""

    name: str
    nodes: Iterator[Node]
    arguments: dict[str, tuple[Value, ...]]
    values: dict[str, Value]
    caller: str = ""
    result: Value = None


def _inlined(ir: Ir, root: Implementation, *, training: bool) -> Iterator[Node]:
    def start(
        implementation: Implementation, values: dict[str, Value], caller: str = ""
    ) -> _Call:
        graph = implementation if training else implementation.graphs[-1]
        nodes = iter(list(graph.in_execution_order()))
        return _Call(implementation.name, nodes, graph.arguments(), values, caller)

    namer = Namer()
    output_name = namer.name(OUTPUT)
    states: dict[str, Value] = {}
    calls = [start(root, {})]
    active = {root.name}
    while calls:
        call = calls[-1]
        node = next(call.nodes, None)
        if node is None:
            calls.pop()
            active.discard(call.name)
            if calls:
                calls[-1].values[call.caller] = call.result
            continue
        args = _substituted(call, call.arguments[node.name])
        kwargs = _substituted(call, node.kwargs)
        if node.type == OUTPUT:
            call.result = returned(args)
            if len(calls) == 1:
                yield replace(node, name=output_name, args=(call.result,), kwargs={})
            continue
        if node.type == INPUT and len(calls) > 1:
            continue
        if node.type == STATE and node.implementation in states:
            call.values[node.name] = states[node.implementation]
            continue
        if node.is_call and ir[node.implementation].nodes:
            callee = ir[node.implementation]
            if callee.name in active:
                raise InvalidIrError(
                    [Problem(_place(callee.name), "it calls itself", "no graph may do that")]
                )
            active.add(callee.name)
            place = f"{_place(call.name)}, node {node.name!r}"
            graph = callee if training else callee.graphs[-1]
            calls.append(start(callee, _bound(graph, callee.name, place, args, kwargs), node.name))
            continue
        known = _element(node, args)
        if known is not _UNKNOWN:
            call.values[node.name] = known
            continue
        wish = node.implementation if node.is_call or node.type == STATE else node.name
        flat = replace(node, name=namer.name(wish), args=args, kwargs=kwargs)
        call.values[node.name] = Ref(flat.name)
        if node.type == STATE:
            states[node.implementation] = Ref(flat.name)
        yield flat


_UNKNOWN: Any = object()


def _bound(
    graph: Graph, callee: str, place: str, args: tuple[Value, ...], kwargs: dict[str, Value]
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
    """The element that a node takes from a tuple which the flat graph spells out."""
    if node.implementation == "operator.getitem" and len(args) == 2:
        whole, index = args
        if type(whole) is tuple and type(index) is int and -len(whole) <= index < len(whole):
            return whole[index]
    return _UNKNOWN


def _place(name: str) -> str:
    return f"implementation {name!r}"
