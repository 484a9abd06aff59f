"""Every rule that an IR must keep.

What a graph *means* is for handlers to know; this is about what every graph needs to mean anything.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping
from contextlib import suppress

from layergraph.errors import MAX_PROBLEMS, InvalidIrError, Place, Problem, brief
from layergraph.ir.dictionary import EDGE_FIELDS, IMPLEMENTATION_FIELDS, NODE_FIELDS
from layergraph.ir.graph import (
    FUNCTION,
    INPUT,
    MODULE,
    OUTPUT,
    STATE,
    Edge,
    Graph,
    Implementation,
    Node,
    TensorSpec,
    differing,
)
from layergraph.ir.mapping import Implementations
from layergraph.ir.names import is_argument_name
from layergraph.ir.regions import check_regions
from layergraph.ir.submodules import Ancestry
from layergraph.ir.values import (
    ATOMS,
    MAX_INTEGER_BITS,
    MAX_NUMBER_KEYS,
    Record,
    Ref,
    Symbol,
    Value,
    is_key,
    parts,
    refs,
)

MAX_NESTING = 100
"""How deep values may be nested: more than any call of a torch function needs."""

MAX_DIMENSIONS = 64
"""A tensor may have as many dimensions as torch computes with."""

# Torch counts in numbers of 64 bits.
_SIZES = range(2**63)


def check(ir: Implementations) -> None:
    """Raise if an IR breaks a rule.

    Raises:
        InvalidIrError: with every broken rule that was found.
    """
    problems = find_problems(ir)
    if problems:
        raise InvalidIrError(problems)


def check_attributes(ir: Implementations) -> None:
    """Raise if what is said of layers breaks a rule, whatever their graphs are.

    It serves where graphs are captured and only attributes come from others.

    Raises:
        InvalidIrError: with every broken rule that was found.
    """
    problems = _Problems()
    with suppress(_EnoughError):
        for name, implementation in ir.items():
            _check_said(problems, name, implementation)
    if problems.found:
        raise InvalidIrError(problems.found)


def find_problems(ir: Implementations) -> list[Problem]:
    """The rules that an IR breaks, in the order of the IR; empty for a valid one.

    Rules about the whole are looked at only where the parts are in order. The search ends at
    ``MAX_PROBLEMS``.
    """
    problems = _Problems()
    with suppress(_EnoughError):
        for name, implementation in ir.items():
            if _check_said(problems, name, implementation):
                _check_graphs_fields(problems, implementation)
        if not problems.found:
            for implementation in ir.values():
                for place, graph in _places(implementation):
                    _check_graph(problems, place, graph)
                if implementation.evaluation is not None:
                    _check_differences(problems, implementation, implementation.evaluation)
            _check_hierarchy(problems, ir)
        if not problems.found:
            _check_calls(problems, ir)
    return problems.found


# A place, or one inside it: of the many nodes and edges, hardly any place is ever told.
_Where = Place | tuple[Place, str, object]

_WHOLE = Place("the IR")


class _EnoughError(Exception):
    """There are as many problems as anybody reads."""


class _Problems:
    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, where: _Where, message: str, remedy: str) -> None:
        place = where if isinstance(where, Place) else where[0].at(*where[1:])
        self.found.append(Problem(place, message, remedy))
        if len(self.found) >= MAX_PROBLEMS:
            raise _EnoughError

    def expect(
        self, where: _Where, what: str, value: object, kind: type | tuple[type, ...]
    ) -> bool:
        """Whether a field has the type that it must have; noted if not."""
        if type(value) is kind:
            return True
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if type(value) in kinds:
            return True
        wanted = " or ".join(each.__name__ for each in kinds)
        self.add(where, f"its {what} is {brief(value)}", f"{what} must be of type {wanted}")
        return False

    def wrong_fields(self, where: _Where, entry: object, fields: _Fields) -> list[str]:
        """The fields that do not have the types that they must have; noted."""
        if fields.fit(entry):
            return []
        return [
            name
            for name, kinds in fields.kinds.items()
            if not self.expect(where, name, getattr(entry, name), kinds)
        ]


class _Fields:
    """The types that the fields of something must have: one of these."""

    def __init__(self, **kinds: tuple[type, ...]) -> None:
        self.kinds = kinds
        self._values = operator.attrgetter(*kinds)
        self._allowed = frozenset(itertools.product(*kinds.values()))

    def fit(self, entry: object) -> bool:
        """Whether all have them: there are many entries, so all of one at once."""
        return tuple(map(type, self._values(entry))) in self._allowed


_NONE = type(None)
_IMPLEMENTATION = _Fields(
    type=(str,),
    training=(bool, _NONE),
    data=(dict,),
    children=(dict, _NONE),
    tensors=(dict,),
    evaluation=(Graph, _NONE),
    differs=(set, _NONE),
    kept_modes=(dict,),
)
_NODE = _Fields(
    name=(str,),
    type=(str,),
    implementation=(str,),
    args=(tuple, _NONE),
    kwargs=(dict,),
    data=(dict,),
)
_EDGE = _Fields(src=(str,), sink=(str,), data=(dict,))
_TENSOR = _Fields(
    kind=(str, _NONE),
    dtype=(str, _NONE),
    requires_grad=(bool, _NONE),
    persistent=(bool, _NONE),
    tied=(str, _NONE),
    value=(bytes, _NONE),
    shape=(tuple, _NONE),
    stride=(tuple, _NONE),
)


def _places(implementation: Implementation) -> list[tuple[Place, Graph]]:
    """The graphs of an implementation in which there is something, and what to call them."""
    named: list[tuple[Place, Graph]] = []
    if implementation.nodes or implementation.edges:
        named.append((_place(implementation), implementation))
    if implementation.evaluation is not None:
        named.append((_place(implementation).at("evaluation"), implementation.evaluation))
    return named


def _place(implementation: Implementation) -> Place:
    return Place("implementation", implementation.name)


# --- the parts: types of fields ---


def _check_said(problems: _Problems, name: str, implementation: Implementation) -> bool:
    """Whether an entry is an implementation; what it says of its layer is in order or noted."""
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
            _check_tensor(problems, (place, "tensor", tensor), implementation, tensor, spec)
    return True


def _check_kept_modes(problems: _Problems, place: Place, kept: Mapping[str, bool | None]) -> None:
    for path, mode in kept.items():
        if type(path) is not str or type(mode) not in (bool, _NONE):
            problems.add(
                place,
                f"it keeps {path!r} in the mode {mode!r}",
                "map paths of modules to True, False or None",
            )


def _check_graphs_fields(problems: _Problems, implementation: Implementation) -> None:
    place = _place(implementation)
    _check_graph_fields(problems, place, implementation)
    if type(implementation.evaluation) is Graph:
        _check_graph_fields(problems, place.at("evaluation"), implementation.evaluation)


def _check_children(problems: _Problems, place: Place, children: Mapping[str, str]) -> None:
    for child, target in children.items():
        if type(child) is not str or type(target) is not str or not all(child.split(".")):
            problems.add(
                place,
                f"its child {brief(child)}: {brief(target)} is no name and implementation",
                "name children by non-empty strings, joined by dots",
            )


def _check_graph_fields(problems: _Problems, place: Place, graph: Graph) -> None:
    if problems.expect(place, "nodes", graph.nodes, dict):
        for key, node in graph.nodes.items():
            _check_node_fields(problems, (place, "node", key), key, node)
    if problems.expect(place, "edges", graph.edges, dict):
        for pair, edge in graph.edges.items():
            _check_edge_fields(problems, (place, "edge", pair), pair, edge)


def _check_data(
    problems: _Problems, place: _Where, data: Mapping[str, Value], fields: tuple[str, ...]
) -> None:
    for key, value in data.items():
        if type(key) is not str or key in fields:
            problems.add(
                place,
                f"it has an attribute named {brief(key)}",
                f"choose a string that is none of {', '.join(fields)}",
            )
        _check_value(problems, place, "attribute", key, value)


# What is sound, whatever its value.
_SOUND = ATOMS - {Ref, Symbol, int}


def _check_value(
    problems: _Problems, place: _Where, what: str, which: object, value: Value
) -> None:
    kind = type(value)
    if kind in _SOUND or (kind is int and -_EASY <= value <= _EASY):
        return
    if kind is Ref and what == "argument" and type(value.node) is str:
        return
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if type(item) is int:
            if not _is_short(item):
                problems.add(
                    place,
                    f"its {what} {which!r} holds an integer of {item.bit_length()} bits",
                    f"use integers of up to {MAX_INTEGER_BITS} bits",
                )
            continue
        inside = parts(item)
        if not _is_sound(item) or (type(item) is Ref and what != "argument"):
            problems.add(
                place,
                f"its {what} {which!r} holds {brief(item)}, a {type(item).__name__}",
                "use plain values: numbers, strings, None, lists, tuples, dicts, slices",
            )
        elif inside is None:
            continue
        elif type(item) is dict and sum(type(key) is not str for key in item) > MAX_NUMBER_KEYS:
            problems.add(
                place,
                f"its {what} {which!r} holds a dict with {len(item)} keys, most of them no strings",
                f"use strings as keys, or up to {MAX_NUMBER_KEYS} others",
            )
        elif depth == MAX_NESTING:
            message = f"its {what} {which!r} is nested too deeply"
            problems.add(place, message, f"nest {MAX_NESTING} deep")
            return
        else:
            stack += [
                (each, depth + 1)
                for each in inside
                if type(each) not in _SOUND and not (type(each) is int and -_EASY <= each <= _EASY)
            ]


def _is_short(number: int) -> bool:
    return -_EASY <= number <= _EASY or number.bit_length() <= MAX_INTEGER_BITS


# Most numbers are small, and a comparison takes less time than a call.
_EASY = 2**53


def _is_sound(item: Value) -> bool:
    """Whether a value is of a plain kind, whatever is inside it."""
    kind = type(item)
    if kind is Ref:
        return type(item.node) is str
    if kind is Symbol:
        return type(item.name) is str
    if kind is Record:
        named = type(item.type) is str and type(item.fields) is dict
        return named and all(type(name) is str for name in item.fields)
    if kind is dict:
        return all(map(_is_key, item))
    return kind in ATOMS or kind in (list, tuple, slice)


def _is_key(key: Value) -> bool:
    return is_key(key) and all(
        type(each) is not int or _is_short(each) for each in (key if type(key) is tuple else (key,))
    )


def _check_tensor(
    problems: _Problems, place: _Where, owner: Implementation, name: object, spec: TensorSpec
) -> None:
    if not problems.expect(place, "entry", spec, TensorSpec):
        return
    problems.expect(place, "name", name, str)
    wrong = problems.wrong_fields(place, spec, _TENSOR)
    shape = spec.shape
    for what, sizes in (("shape", shape), ("stride", spec.stride)):
        if what not in wrong:
            for size in sizes or ():
                if type(size) is not int or size not in _SIZES:
                    remedy = "give numbers of 63 bits that are not negative"
                    problems.add(place, f"its {what} is {brief(sizes)}", remedy)
                    break
            if sizes and len(sizes) > MAX_DIMENSIONS:
                remedy = f"torch computes with {MAX_DIMENSIONS} dimensions at most"
                problems.add(place, f"its {what} has {len(sizes)} dimensions", remedy)
    if spec.kind not in (None, "parameter", "buffer", "constant"):
        problems.add(
            place, f"its kind is {brief(spec.kind)}", "the kinds are parameter, buffer and constant"
        )
    if owner.type == MODULE and (spec.kind is None or (shape is None and spec.tied is None)):
        problems.add(
            place, "its kind or shape is missing", "no constructor would make it: say both"
        )
    if spec.kind == "constant" and spec.value is None and spec.tied is None:
        problems.add(place, "it is a constant without a value", "give its value")


def _check_node_fields(problems: _Problems, place: _Where, key: object, node: Node) -> None:
    if not problems.expect(place, "entry", node, Node):
        return
    wrong = problems.wrong_fields(place, node, _NODE)
    if "name" not in wrong and key != node.name:
        problems.add(place, f"its name is {node.name!r}", "key nodes by their names")
    if "args" not in wrong and node.args:
        for index, arg in enumerate(node.args):
            _check_value(problems, place, "argument", index, arg)
    if "kwargs" not in wrong and node.kwargs:
        for name, arg in node.kwargs.items():
            if type(name) is not str or not is_argument_name(name):
                problems.add(place, f"it has an argument named {brief(name)}", "use an identifier")
            _check_value(problems, place, "argument", name, arg)
    if "data" not in wrong and node.data:
        _check_data(problems, place, node.data, NODE_FIELDS)


def _check_edge_fields(problems: _Problems, place: _Where, pair: object, edge: Edge) -> None:
    if not problems.expect(place, "entry", edge, Edge):
        return
    wrong = problems.wrong_fields(place, edge, _EDGE)
    if pair != (edge.src, edge.sink):
        problems.add(place, f"it goes from {edge.src!r} to {edge.sink!r}", "key it by (src, sink)")
    if "data" not in wrong and edge.data:
        _check_data(problems, place, edge.data, EDGE_FIELDS)


# --- one graph ---


def _check_graph(problems: _Problems, place: Place, graph: Graph) -> None:
    for src, sink in graph.edges:
        for end in (src, sink):
            if end not in graph.nodes:
                problems.add(
                    place.at("edge", (src, sink)),
                    f"there is no node {end!r}",
                    "add the node or remove the edge",
                )
    if not graph.nodes:
        return
    outputs = [node.name for node in graph.nodes.values() if node.type == OUTPUT]
    if len(outputs) != 1:
        problems.add(
            place,
            f"its graph has {len(outputs)} outputs" if outputs else "its graph has no output",
            "give it exactly one node of type output, which may return several values",
        )
    reads: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for src, sink in graph.edges:
        if sink in graph.nodes:
            reads[sink].append(src)
    for node in graph.nodes.values():
        _check_arguments(problems, (place, "node", node.name), graph, node, reads[node.name])
    _check_cycles(problems, place, graph)
    for name, message, remedy in check_regions(graph):
        problems.add((place, "node", name), message, remedy)


def _check_differences(
    problems: _Problems, implementation: Implementation, evaluation: Graph
) -> None:
    """Note an edit that was made in one of two graphs only."""
    known = implementation.differs
    if known is None:
        return
    for name in sorted(differing(implementation, evaluation, known)):
        what = "is not the same in both graphs any more"
        if name not in evaluation.nodes:
            what = "is not in the graph for evaluation"
        elif name not in implementation.nodes:
            what = "is only in the graph for evaluation"
        problems.add(
            (_place(implementation), "node", name),
            f"it {what}",
            f"make the same edit in both nodes and evaluation.nodes, or add {name!r} to differs",
        )


def _check_arguments(
    problems: _Problems, place: _Where, graph: Graph, node: Node, predecessors: list[str]
) -> None:
    if node.args is None and not node.kwargs:
        named = predecessors
        if len(named) > 1:
            listed = " and ".join(map(repr, named[:3])) + (" …" if len(named) > 3 else "")
            problems.add(
                place,
                f"it reads {listed}, and its arguments do not say which is which",
                f"give it args, as in ({', '.join(f'Ref({name!r})' for name in named[:2])})",
            )
    else:
        named = list(dict.fromkeys(refs(*(node.args or ()), *node.kwargs.values())))
    for name in named:
        if name not in graph.nodes and named is not predecessors:
            problems.add(
                place,
                f"its arguments name {name!r}, which is no node here",
                "name one of the graph",
            )
        elif name in graph.nodes and graph.nodes[name].type == OUTPUT:
            problems.add(place, f"it reads {name!r}, an output", "read what the output returns")
    for name in [] if named is predecessors else sorted(set(named) ^ set(predecessors)):
        if name in named:
            problems.add(
                place,
                f"its arguments name {name!r}, but no edge comes from there",
                f"add the edge {(name, node.name)!r}",
            )
        else:
            problems.add(
                place,
                f"an edge comes from {name!r}, but its arguments do not name it",
                f"remove the edge {(name, node.name)!r} or name {name!r} in the arguments",
            )
    _check_kind(problems, place, node, takes=bool(named))


def _check_kind(problems: _Problems, place: _Where, node: Node, *, takes: bool) -> None:
    """What a node of its type may have."""
    takes = takes or bool(node.args or (node.kwargs and node.type != INPUT))
    if node.type in (INPUT, STATE) and takes:
        problems.add(place, f"a node of type {node.type} takes arguments", "remove them")
    elif node.type == INPUT:
        _check_input(problems, place, node)
    if node.type == OUTPUT and node.kwargs:
        problems.add(place, "an output takes arguments by name", "use one positional argument")
    if node.type in (STATE, FUNCTION) and not node.implementation:
        problems.add(place, "its implementation is empty", f"say which {node.type} it is")


def _check_input(problems: _Problems, place: _Where, node: Node) -> None:
    """What an input node says of the input."""
    for name, value in node.kwargs.items():
        kind = _INPUT_FACTS.get(name)
        if kind is None:
            known = ", ".join(_INPUT_FACTS)
            problems.add(place, f"it says {name!r} of an input", f"what can be said is {known}")
        elif kind is not object:
            problems.expect(place, name, value, kind)


# What may be said of an input, and of what type that is.
_INPUT_FACTS: dict[str, type] = {"default": object, "fixed": object, "rank": int, "dtype": Symbol}


def _check_cycles(problems: _Problems, place: Place, graph: Graph) -> None:
    runnable = [node.name for node in graph.in_execution_order()]
    if len(runnable) < len(graph.nodes):
        known = set(runnable)
        stuck = [name for name in graph.nodes if name not in known]
        names = ", ".join(map(repr, stuck[:5])) + (", …" if len(stuck) > 5 else "")
        problems.add(
            place,
            f"its graph has a cycle: {names} wait for one another",
            "remove an edge of it",
        )


# --- the whole ---


def _check_hierarchy(problems: _Problems, ir: Implementations) -> None:
    for implementation in ir.values():
        for child, target in (implementation.children or {}).items():
            if target in ir and target != ir.root:
                continue
            place = (_place(implementation), "child", child)
            if target not in ir:
                problems.add(
                    place,
                    f"it is {target!r}, which is no implementation",
                    "add the implementation or remove the child",
                )
            else:
                problems.add(place, "it is the root", "remove the child")
    reached = _check_circles(problems, ir)
    for name, implementation in ir.items():
        if name not in reached:
            problems.add(
                _place(implementation),
                "no implementation has it as a child",
                "add it to the children of one, or remove it",
            )


def _check_circles(problems: _Problems, ir: Implementations) -> set[str]:
    """Look for implementations that contain themselves; give those that the root contains."""
    reached = {ir.root}
    finished: set[str] = set()
    stack = [(ir.root, _targets(ir, ir.root))]
    while stack:
        name, targets = stack[-1]
        target = next(targets, None)
        if target is None:
            finished.add(name)
            stack.pop()
        elif target not in reached:
            reached.add(target)
            stack.append((target, _targets(ir, target)))
        elif target not in finished:
            problems.add(
                _place(ir[name]), f"it contains {target!r}, which contains it", "break the circle"
            )
    return reached


def _targets(ir: Implementations, name: str) -> Iterator[str]:
    return iter([target for target in (ir[name].children or {}).values() if target in ir])


def _check_calls(problems: _Problems, ir: Implementations) -> None:
    ancestry = Ancestry.of(ir)
    parameters = {
        name: [list(graph.parameters().values()) for graph in each.graphs]
        for name, each in ir.items()
        if each.nodes
    }
    for implementation in ir.values():
        for around, graph in _places(implementation):
            arguments = graph.arguments()
            for node in graph.nodes.values():
                if not node.is_call:
                    continue
                place = (around, "node", node.name)
                if node.implementation not in ir:
                    problems.add(
                        place,
                        f"it calls {node.implementation!r}, which is no implementation",
                        "add the implementation or call another",
                    )
                    continue
                callee = ir[node.implementation]
                _check_callee(problems, place, ancestry, implementation, node, callee)
                taken = parameters.get(callee.name, [])
                count = len(arguments[node.name])
                if taken and not any(_fits(node, count, each) for each in taken):
                    takes = " or ".join(map(_listed, taken))
                    problems.add(
                        place, f"its arguments do not fit {callee.name!r}", f"give it {takes}"
                    )


def _check_callee(
    problems: _Problems,
    place: _Where,
    ancestry: Ancestry,
    implementation: Implementation,
    node: Node,
    callee: Implementation,
) -> None:
    if node.type != callee.type:
        problems.add(
            place,
            f"its type is {node.type!r}, but {callee.name!r} is of type {callee.type!r}",
            "give both the same type",
        )
    if not ancestry.contains(implementation.name, callee.name):
        problems.add(
            place,
            f"it calls {callee.name!r}, which is not among what {implementation.name!r} contains",
            "add it to the children there",
        )


def _fits(node: Node, count: int, parameters: list[str]) -> bool:
    if count + len(node.kwargs) != len(parameters):
        return False
    return sorted(parameters[count:]) == sorted(node.kwargs)


def _listed(parameters: list[str]) -> str:
    shown = ", ".join(parameters[:_SHOWN]) or "none"
    rest = len(parameters) - _SHOWN
    return shown if rest <= 0 else f"{shown} and {rest} more"


# So many names tell which ones are meant.
_SHOWN = 20
