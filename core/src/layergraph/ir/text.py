"""Printing an IR as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from layergraph.ir.graph import BODY, FUNCTION, INPUT, OUTPUT, STATE, Graph, Implementation, Node
from layergraph.ir.mapping import Implementations
from layergraph.ir.modes import changes_of_mode
from layergraph.ir.values import Body, Record, Ref, Symbol, Value, map_leaves


class _Bare:
    """A text whose ``repr`` is itself, without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def render(ir: Implementations) -> str:
    """Return the text of an IR: a line for each implementation, and below it one for each node."""
    return "\n".join(lines(ir))


def lines(ir: Implementations) -> Iterator[str]:
    """Yield the lines of :func:`render`. An item may contain a line break if a name does."""
    names = [ir.root, *(name for name in ir if name != ir.root)]
    training = changes_of_mode(ir, ir.root)
    return (line for name in names for line in _implementation(ir[name], training.get(name)))


def _implementation(implementation: Implementation, training: bool | None) -> Iterator[str]:
    yield f"{implementation.name}: {layer_text(implementation, training)}"
    for path, mode in implementation.kept_modes.items():
        kept = "as it is" if mode is None else "training" if mode else "not training"
        yield f"    train() keeps {path or 'itself'}: {kept}"
    for name, spec in implementation.tensors.items():
        yield f"    {name}: {spec!r}"
    for graph in implementation.graphs:
        if implementation.evaluation is not None:
            yield "  evaluating:" if graph is implementation.evaluation else "  training:"
        arguments = graph.arguments()
        notes = _notes(graph)
        for node in graph.in_execution_order():
            yield f"    {node_text(node, arguments[node.name])}{notes.get(node.name, '')}"


def _notes(graph: Graph) -> dict[str, str]:
    """Return the annotations that all edges from a node share, as comments, by node."""
    shared: dict[str, dict[str, str]] = {}
    for (source, _), edge in graph.edges.items():
        # Texts, because NaN is unequal to itself.
        texts = {name: value_text(each) for name, each in edge.data.items()}
        common = shared.setdefault(source, texts)
        if common != texts:
            shared[source] = {
                name: text for name, text in common.items() if texts.get(name) == text
            }
    return {
        source: f"  # {', '.join(f'{name}={text}' for name, text in texts.items())}"
        for source, texts in shared.items()
        if texts
    }


def layer_text(implementation: Implementation, training: bool | None = None) -> str:
    """Return the type of an implementation with its attributes: ``linear(in_features=1)``.

    Args:
        implementation: the implementation.
        training: its mode; None: the text does not show it.
    """
    listed = [f"{name}={value_text(value)}" for name, value in implementation.data.items()]
    if training is not None:
        listed.append("training" if training else "not training")
    return f"{implementation.type}({', '.join(listed)})"


def node_text(node: Node, args: tuple[Value, ...]) -> str:
    """Return the line of a node: ``relu = torch.relu(input_1)``."""
    listed = [value_text(arg) for arg in args]
    listed += [f"{name}={value_text(value)}" for name, value in node.kwargs.items()]
    given = ", ".join(listed)
    if node.when is not None:
        condition, expected = node.when
        return f"{_text(node, given)} if {'' if expected else 'not '}{condition.node}"
    return _text(node, given)


def _text(node: Node, given: str) -> str:
    if node.type == INPUT:
        return f"{node.name} = input({given})" if given else f"{node.name} = input"
    if node.type == OUTPUT:
        return f"return {given}"
    if node.type == STATE:
        read = f"{node.name} = state {node.implementation}"
        return f"{read} = {given}" if node.sets_state else read
    if node.type == FUNCTION:
        return f"{node.name} = {node.implementation}({given})"
    return f"{node.name} = {node.type} {node.implementation}({given})"


def _name_of(leaf: Value) -> str | None:
    if type(leaf) is Ref:
        return leaf.node
    if type(leaf) is Body:
        return f"{BODY} {leaf.implementation}"
    return leaf.name if type(leaf) is Symbol else None


def value_text(value: Any, bare: Callable[[Any], str | None] = _name_of) -> str:
    """Return the text of a plain value, with references and symbols as bare names.

    Args:
        value: the value.
        bare: returns the text of a leaf that has one of its own, without quotes, or else None.
    """

    def leaf(each: Any) -> Any:
        text = bare(each)
        return each if text is None else _Bare(text)

    if type(value) is Record:
        fields = [f"{name}={value_text(item, bare)}" for name, item in value.fields.items()]
        return f"{value.type}({', '.join(fields)})"
    return repr(map_leaves(leaf, value))
