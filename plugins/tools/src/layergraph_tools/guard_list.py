"""The guards of an IR as a readable list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from layergraph.ir.graph import INPUT, Graph, Node
from layergraph.ir.mapping import Implementations
from layergraph.ir.text import node_text, value_text
from layergraph.ir.values import Ref, Value

_PREFIX = "layergraph.assume"


@dataclass(frozen=True, slots=True)
class Guard:
    """A fact that a rebuilt model checks, because the capture depends on it.

    Attributes:
        implementation: the name of the implementation whose graph checks it.
        node: the name of the node: a guard, or an input.
        says: the checked fact, such as ``"operator.gt(size, 1) is True"``.
        where: the line of the model's code that depends on it; empty for an input.
        when: the condition under which it is checked; empty if it always is.
    """

    implementation: str
    node: str
    says: str
    where: str
    when: str

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.implementation}: {self.says}{f' if {self.when}' * bool(self.when)}{place}"


def guards_of(ir: Implementations) -> list[Guard]:
    """Return the guards of all graphs, in the order of the model.

    Args:
        ir: a checked IR.
    """
    found: dict[Guard, None] = {}
    for implementation in ir.values():
        for graph in implementation.graphs:
            arguments = graph.arguments()
            for node in graph.in_execution_order():
                for says, where in _said(graph, node, arguments):
                    found[Guard(implementation.name, node.name, says, where, _when(node))] = None
    return list(found)


def _said(
    graph: Graph, node: Node, arguments: dict[str, tuple[Value, ...]]
) -> Iterator[tuple[str, str]]:
    """Yield the facts that a node checks, each with the line of code that depends on it."""
    if node.type == INPUT:
        yield from _of_input(node)
        return
    kind = node.implementation.removeprefix(_PREFIX)
    if not node.implementation.startswith(_PREFIX):
        return
    value, *given = arguments[node.name]
    texts = [value_text(each) for each in given]
    if kind == "_tensor":
        facts = ["of rank " + texts[1]] if given[1:2] not in ([], [None]) else []
        facts += ["of " + texts[2]] if given[2:3] not in ([], [None]) else []
        yield " ".join([f"the input {texts[0]} is a tensor", *facts]), ""
    elif kind == "_container":
        article = "an" if str(given[0])[:1] in "aeiou" else "a"
        of = "" if given[1] is None else f" of {texts[1]}"
        yield f"{given[2]} is {article} {given[0]}{of}", ""
    elif kind == "_device":
        is_on = "is" if given[1] is True else "is not"
        yield (
            f"{_source(graph, value, arguments)} {is_on} on {texts[0]} (or it warns)",
            str(given[2]),
        )
    elif kind == "_environment":
        yield f"the environment's {value} is {texts[0]}", str(given[1])
    elif kind == "_named":
        yield f"{_source(graph, value, arguments)} is {given[1]}", str(given[2])
    elif kind == "_distinct":
        objects = value if isinstance(value, tuple | list) else (value,)
        parts = [_source(graph, each, arguments) for each in objects]
        yield f"{', '.join(parts)} are different objects", str(given[0])
    else:
        has = f"has {texts[0]} parts" if kind == "_length" else f"is {texts[0]}"
        otherwise = f"; otherwise: {given[2]}" if len(given) > 2 else ""
        yield f"{_source(graph, value, arguments)} {has}{otherwise}", str(given[1])


def _of_input(node: Node) -> Iterator[tuple[str, str]]:
    for fact, value in node.kwargs.items():
        if fact != "default":
            is_what = "is" if fact == "fixed" else f"has the {fact}"
            yield f"the input {node.name!r} {is_what} {value_text(value)}", ""


def _source(graph: Graph, value: Value, arguments: dict[str, tuple[Value, ...]]) -> str:
    """Return the text of the call that computes a value."""
    if type(value) is not Ref:
        return value_text(value)
    node = graph.nodes[value.node]
    if node.type == INPUT:
        return f"the input {node.name!r}"
    return node_text(replace(node, when=None), arguments[node.name]).partition(" = ")[2]


def _when(node: Node) -> str:
    if node.when is None:
        return ""
    condition, expected = node.when
    return condition.node if expected else f"not {condition.node}"
