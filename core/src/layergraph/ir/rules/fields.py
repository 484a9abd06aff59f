"""Rules of single parts: the types of their fields, and the values that these may have."""

from __future__ import annotations

from collections.abc import Mapping

from layergraph.errors import Place, brief
from layergraph.ir.dictionary import EDGE_FIELDS, IMPLEMENTATION_FIELDS, NODE_FIELDS
from layergraph.ir.edges import Edge, Edges
from layergraph.ir.function_name import FunctionName
from layergraph.ir.graph import Graph, Implementation, Node
from layergraph.ir.mapping import Implementations
from layergraph.ir.names import is_argument_name
from layergraph.ir.rules.problems import FieldTypes, Problems, Where, place_of
from layergraph.ir.rules.tensors import check_tensor
from layergraph.ir.rules.values import check_value
from layergraph.ir.values import Ref, Value

_WHOLE = Place("the IR")

_NONE = type(None)
_IMPLEMENTATION = FieldTypes(
    type=(str,),
    training=(bool, _NONE),
    data=(dict,),
    children=(dict, _NONE),
    tensors=(dict,),
    evaluation=(Graph, _NONE),
    differs=(set, _NONE),
    kept_modes=(dict,),
)


_NODE = FieldTypes(
    name=(str,),
    type=(str,),
    implementation=(str, FunctionName),
    args=(tuple, _NONE),
    kwargs=(dict,),
    data=(dict,),
    when=(tuple, _NONE),
)


_EDGE = FieldTypes(src=(str,), sink=(str,), data=(dict,))


def check_implementations(problems: Problems, ir: Implementations) -> None:
    """Check the fields of all implementations, except for their graphs."""
    for name, implementation in ir.items():
        _check_implementation(problems, name, implementation)


def check_parts(problems: Problems, ir: Implementations) -> None:
    """Check the fields of all implementations, nodes and edges."""
    for name, implementation in ir.items():
        if _check_implementation(problems, name, implementation):
            place = place_of(implementation)
            _check_graph(problems, place, implementation)
            if type(implementation.evaluation) is Graph:
                _check_graph(problems, place.at("evaluation"), implementation.evaluation)


def _check_implementation(problems: Problems, name: str, implementation: Implementation) -> bool:
    """Return whether an entry is an implementation; check its fields if so."""
    place = Place("implementation", name)
    if not problems.expect(_WHOLE, "entry", implementation, Implementation):
        return False
    if implementation.name != name:
        problems.add(place, f"its name is {implementation.name!r}", "key it by its name")
    wrong = problems.wrong_fields(place, implementation, _IMPLEMENTATION)
    if implementation.type == "":
        problems.add(place, "its type is empty", "name the kind of layer")
    if "data" not in wrong:
        _check_data(problems, place, implementation.data, IMPLEMENTATION_FIELDS)
    if "children" not in wrong:
        _check_children(problems, place, implementation.children or {})
    if "kept_modes" not in wrong:
        _check_kept_modes(problems, place, implementation.kept_modes)
    if "tensors" not in wrong:
        for tensor, spec in implementation.tensors.items():
            check_tensor(problems, (place, "tensor", tensor), implementation, tensor, spec)
    return True


def _check_kept_modes(problems: Problems, place: Place, kept: Mapping[str, bool | None]) -> None:
    for path, mode in kept.items():
        if type(path) is not str or type(mode) not in (bool, _NONE):
            problems.add(
                place,
                f"it keeps {path!r} in the mode {mode!r}",
                "map paths of modules to True, False or None",
            )


def _check_children(problems: Problems, place: Place, children: Mapping[str, str]) -> None:
    for child, target in children.items():
        if type(child) is not str or type(target) is not str or not all(child.split(".")):
            problems.add(
                place,
                f"its child {brief(child)}: {brief(target)} is no name and implementation",
                "name children by non-empty strings, joined by dots",
            )


def _check_graph(problems: Problems, place: Place, graph: Graph) -> None:
    if problems.expect(place, "nodes", graph.nodes, dict):
        for key, node in graph.nodes.items():
            _check_node(problems, (place, "node", key), key, node)
    if problems.expect(place, "edges", graph.edges, (Edges, dict)):
        for pair, edge in graph.edges.items():
            _check_edge(problems, (place, "edge", pair), pair, edge)


def _check_node(problems: Problems, place: Where, key: object, node: Node) -> None:
    if not problems.expect(place, "entry", node, Node):
        return
    wrong = problems.wrong_fields(place, node, _NODE)
    if "name" not in wrong and key != node.name:
        problems.add(place, f"its name is {node.name!r}", "key nodes by their names")
    if "args" not in wrong and node.args:
        for index, arg in enumerate(node.args):
            check_value(problems, place, "argument", index, arg)
    if "kwargs" not in wrong and node.kwargs:
        for name, arg in node.kwargs.items():
            if type(name) is not str or not is_argument_name(name):
                problems.add(place, f"it has an argument named {brief(name)}", "use an identifier")
            check_value(problems, place, "argument", name, arg)
    if "data" not in wrong and node.data:
        _check_data(problems, place, node.data, NODE_FIELDS)
    if "when" not in wrong and node.when is not None:
        _check_when(problems, place, node.when)


def _check_when(problems: Problems, place: Where, when: tuple[object, ...]) -> None:
    kinds = [*map(type, when)]
    if kinds != [Ref, bool] or type(when[0].node) is not str:  # type: ignore[attr-defined]
        problems.add(
            place,
            f"its condition is {brief(when)}",
            "give the node whose value decides, and what it has to be, as in (Ref('truth'), True)",
        )


def _check_edge(problems: Problems, place: Where, pair: object, edge: Edge) -> None:
    if not problems.expect(place, "entry", edge, Edge):
        return
    wrong = problems.wrong_fields(place, edge, _EDGE)
    if pair != (edge.src, edge.sink):
        problems.add(place, f"it goes from {edge.src!r} to {edge.sink!r}", "key it by (src, sink)")
    if "data" not in wrong and edge.data:
        _check_data(problems, place, edge.data, EDGE_FIELDS)


def _check_data(
    problems: Problems, place: Where, data: Mapping[str, Value], taken: tuple[str, ...]
) -> None:
    for key, value in data.items():
        if type(key) is not str or key in taken:
            problems.add(
                place,
                f"it has an attribute named {brief(key)}",
                f"choose a string that is none of {', '.join(taken)}",
            )
        check_value(problems, place, "attribute", key, value)
