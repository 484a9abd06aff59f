"""The document: the content of a picture as plain data with short texts.

The page reads it as JSON, and the other formats read the same objects. It contains each
implementation once, even if the model calls it several times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from layergraph.ir import FUNCTION, INPUT, OUTPUT, Graph, Implementation, Ir, Node, Record, Value
from layergraph.ir.modes import changes_of_mode, modes
from layergraph.ir.text import node_text, value_text
from layergraph.ir.values import parts
from layergraph_shapes.forms import Forms
from layergraph_tools.guard_list import guards_of
from layergraph_view.facts import Facts
from layergraph_view.groups import Group, grouped

MOST_TEXT = 2_000
"""The most characters of one text. A constant list of a model may have millions."""

_SHAPE, _DTYPE = "layergraph.shape", "layergraph.dtype"


@dataclass(slots=True)
class Step:
    """A node.

    Attributes:
        name: its name.
        kind: ``input``, ``output``, ``state``, ``function``, ``guard``, ``choice`` or ``call``.
        label: the type of the layer, the name of the function, or the key of the tensor.
        text: the line of the node in a printed IR.
        target: the layer that it calls, as a position in :attr:`Document.layers`; None for none.
        bodies: the bodies that it runs, as positions in :attr:`Document.layers`.
        condition: the node of its condition; empty if it always runs.
        notes: annotations, as pairs of texts.
        changes: lines about what has changed.
    """

    name: str
    kind: str
    label: str
    text: str
    target: int | None
    bodies: list[int]
    condition: str
    notes: list[tuple[str, str]]
    changes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Level:
    """A graph.

    Attributes:
        steps: its nodes, in execution order.
        edges: source, sink and the shape of the value, which may be empty.
        groups: the groups of nodes.
    """

    steps: list[Step]
    edges: list[tuple[int, int, str]]
    groups: list[Group]


@dataclass(slots=True)
class Layer:
    """An implementation.

    Attributes:
        name: its name.
        type: its type.
        attributes: names and values, as texts.
        notes: annotations and further facts, as texts.
        levels: its graphs: none for a leaf, two if the evaluation graph differs.
        parameters: the number of elements of its own parameters; None if unknown.
        flops: its own FLOPs; None if unknown.
        changes: lines about what has changed.
    """

    name: str
    type: str
    attributes: list[tuple[str, str]]
    notes: list[tuple[str, str]]
    levels: list[Level]
    parameters: int | None
    flops: int | None
    changes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Document:
    """A model.

    Attributes:
        title: the title.
        root: the model, as a position in ``layers``.
        evaluates: True if the model is in evaluation mode.
        layers: the implementations.
        guards: the layer, the node, the checked fact, the line of code, and the condition.
        changes: the changes: the layer and the node, or None if the picture has none, and a line.
            None without a comparison.
        notes: sentences about unknown facts.
    """

    title: str
    root: int
    evaluates: bool
    layers: list[Layer]
    guards: list[tuple[int, str, str, str, str]]
    changes: list[tuple[int | None, str | None, str]] | None
    notes: list[str]


def document(ir: Ir, facts: Facts, title: str, changes: Iterable[Any] | None = None) -> Document:
    """Return the document of a checked IR.

    Args:
        ir: the IR.
        facts: more about its layers.
        title: the title.
        changes: the changes, each a :class:`layergraph_tools.difference.Change`.
    """
    places = {name: place for place, name in enumerate(ir)}
    forms = Forms(ir)
    written = changes_of_mode(ir, ir.root)
    layers = [_layer(each, places, forms, facts, written.get(each.name)) for each in ir.values()]
    guards = [
        (
            places[each.implementation],
            shortened(each.node),
            shortened(each.says),
            shortened(each.where),
            shortened(each.when),
        )
        for each in guards_of(ir)
    ]
    made = Document(
        title=shortened(title),
        root=places[ir.root],
        evaluates=not modes(ir, ir.root)[ir.root][0],
        layers=layers,
        guards=guards,
        changes=None,
        notes=list(facts.notes),
    )
    if changes is not None:
        made.changes = []
        _mark(made, places, changes)
    return made


def shortened(text: str) -> str:
    """Return a text of at most about :data:`MOST_TEXT` characters, all of which print.

    Names in a foreign file may contain control characters, which could reverse the reading order or
    break a picture.
    """
    more = f"… ({len(text):,} characters)" if len(text) > MOST_TEXT else ""
    text = text[:MOST_TEXT] + more
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def _layer(
    implementation: Implementation,
    places: Mapping[str, int],
    forms: Forms,
    facts: Facts,
    training: bool | None,
) -> Layer:
    own: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    for name, value in implementation.data.items():
        (notes if "." in name else own).append((shortened(name), shortened(value_text(value))))
    for name, spec in implementation.tensors.items():
        notes.append((shortened(f"tensor {name}"), shortened(repr(spec)[len("TensorSpec(") : -1])))
    if training is not None:
        notes.append(("mode", "training" if training else "evaluation"))
    for path, mode in implementation.kept_modes.items():
        kept = "as it is" if mode is None else "training" if mode else "evaluation"
        notes.append((shortened(f"train() keeps {path or 'itself'}"), kept))
    has_graph = bool(implementation.nodes)
    levels = [_level(each, places, forms) for each in implementation.graphs] if has_graph else []
    name = implementation.name
    return Layer(
        name=shortened(name),
        type=shortened(implementation.type),
        attributes=own,
        notes=notes,
        levels=levels,
        parameters=facts.parameters.get(name),
        flops=facts.flops.get(name),
    )


def _level(graph: Graph, places: Mapping[str, int], forms: Forms) -> Level:
    arguments = graph.arguments()
    nodes = list(graph.in_execution_order())
    order = {node.name: place for place, node in enumerate(nodes)}
    for node in nodes:
        for each in [node.implementation] if node.is_call else node.bodies():
            forms.of(each)
    steps = [_step(node, arguments[node.name], places) for node in nodes]
    edges = sorted(
        (order[src], order[sink], shortened(_described(edge.data)))
        for (src, sink), edge in graph.edges.items()
    )
    reach = list(range(len(nodes)))
    for src, sink, _ in edges:
        reach[src] = max(reach[src], sink)
    numbers = [forms.step(node, arguments[node.name]) for node in nodes]
    calls = [step.target is not None or bool(step.bodies) for step in steps]
    return Level(steps, edges, grouped(numbers, calls, reach))


def _step(node: Node, args: tuple[Value, ...], places: Mapping[str, int]) -> Step:
    kind = node.type
    if node.is_call:
        kind = "call"
    elif kind == FUNCTION and node.implementation.startswith("layergraph.assume"):
        kind = "guard"
    elif kind == FUNCTION and node.implementation in _CHOICES:
        kind = "choice"
    label = node.type if node.is_call else node.implementation
    return Step(
        name=shortened(node.name),
        kind=kind,
        label=kind if kind in (INPUT, OUTPUT) else shortened(label),
        text=shortened(node_text(node, args)),
        target=places[node.implementation] if node.is_call else None,
        bodies=list(dict.fromkeys(places[each] for each in node.bodies())),
        condition=shortened(node.when[0].node) if node.when is not None else "",
        notes=[(shortened(name), shortened(value_text(each))) for name, each in node.data.items()],
    )


_CHOICES = frozenset({"layergraph.choose", "layergraph.holds"})


def _described(data: Mapping[str, Value]) -> str:
    """Return the text of the shape and the dtype of a value: ``float32[2, 3]``."""
    if data.get(_SHAPE) is None:
        return ""
    return _tensor_text(data[_SHAPE], data.get(_DTYPE))


def _tensor_text(shape: Value, dtype: Value) -> str:
    if shape is None:
        return "no tensor"
    if type(shape) is tuple and all(type(each) in (int, str) for each in shape):
        name = value_text(dtype).removeprefix("torch.") if dtype is not None else ""
        return f"{name}[{', '.join(map(str, shape))}]"
    inside, kinds = parts(shape), parts(dtype)
    if inside is None:
        return value_text(shape)
    if kinds is None or len(kinds) != len(inside):
        kinds = (None,) * len(inside)
    texts = [_tensor_text(each, kind) for each, kind in zip(inside, kinds, strict=True)]
    keys = list(shape.fields) if type(shape) is Record else shape if type(shape) is dict else None
    if keys is not None:
        texts = [f"{key}: {text}" for key, text in zip(keys, texts, strict=True)]
    return f"({', '.join(texts)})"


def _mark(made: Document, places: Mapping[str, int], changes: Iterable[Any]) -> None:
    """Add the changes to the layers, the nodes and the list of changes."""
    made.changes = []
    for change in changes:
        line = shortened(str(change))
        place = None if change.layer is None else places.get(change.layer)
        path = change.path[1:] if change.path[:1] == ("evaluation",) else change.path
        steps = [] if place is None else _named_steps(made.layers[place].levels, path)
        for step in steps:
            step.changes.append(line)
        if place is not None and not steps:
            made.layers[place].changes.append(line)
        listed = f"{shortened(change.layer)}: {line}" if change.layer is not None and path else line
        made.changes.append((place, steps[0].name if steps else None, listed))


def _named_steps(levels: Sequence[Level], path: Sequence[str]) -> list[Step]:
    if len(path) < 2 or path[0] != "nodes":
        return []
    return [step for level in levels for step in level.steps if step.name == shortened(path[1])]
