"""The body of a graph or function of ONNX while it is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import onnx_ir

Form = tuple[Any, ...]


class Scope:
    """The body of a graph or function while it is written.

    Attributes:
        nodes: its nodes in order.
        inputs: for each value outside, its input.
        weights: the inputs for tensors of the model, by key.
        constants: the values of constants, by dtype, shape and numbers.
        keys: the keys that were asked for, each with that under which its tensor is known: tensors
            in the same memory are known under one key.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.nodes: list[onnx_ir.Node] = []
        self.inputs: dict[onnx_ir.Value, onnx_ir.Value] = {}
        self.weights: dict[str, onnx_ir.Value] = {}
        self.constants: dict[Any, onnx_ir.Value] = {}
        self.keys: dict[str, str] = {}
        self._names = dict.fromkeys(taken, 1)

    def name(self, wanted: str) -> str:
        """Return a name that is unique in the scope."""
        count = self._names.get(wanted, 0)
        self._names[wanted] = count + 1
        return wanted if not count else self.name(f"{wanted}_{count}")

    def input(self, outside: onnx_ir.Value) -> onnx_ir.Value:
        """Return the input for a value outside."""
        if outside not in self.inputs:
            inside = onnx_ir.Value(name=self.name(outside.name or "input"))
            inside.meta.update(outside.meta)
            self.inputs[outside] = inside
        return self.inputs[outside]

    def needed(self, outputs: Iterable[onnx_ir.Value]) -> list[onnx_ir.Node]:
        """Return the nodes that outputs need, in order."""
        wanted = set(outputs)
        kept = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs):
                kept.append(node)
                wanted.update(used(node))
        return kept[::-1]


def used(node: onnx_ir.Node) -> Iterator[onnx_ir.Value]:
    """Yield the values that a node and the graphs in its attributes read."""
    yield from (each for each in node.inputs if each is not None)
    for graph in subgraphs(node):
        for inner in graph:
            yield from used(inner)
        yield from (each for each in graph.outputs if each is not None)


def subgraphs(node: onnx_ir.Node) -> Iterator[onnx_ir.Graph]:
    """Yield the graphs in the attributes of a node."""
    for attribute in node.attributes.values():
        if attribute.type == onnx_ir.AttributeType.GRAPH:
            yield attribute.value
        elif attribute.type == onnx_ir.AttributeType.GRAPHS:
            yield from attribute.value


def form_of(
    inputs: Sequence[onnx_ir.Value],
    nodes: Iterable[onnx_ir.Node],
    outputs: Sequence[onnx_ir.Value],
) -> Form:
    """Return a key that is equal for bodies that differ only in names."""
    numbers: dict[onnx_ir.Value | None, int] = {None: -1}
    for each in inputs:
        numbers[each] = len(numbers)
    return _form(numbers, nodes, outputs)


def _form(
    numbers: dict[onnx_ir.Value | None, int],
    nodes: Iterable[onnx_ir.Node],
    outputs: Sequence[onnx_ir.Value],
) -> Form:
    parts: list[Any] = []
    for node in nodes:
        attributes = [
            (name, _attribute(numbers, each)) for name, each in sorted(node.attributes.items())
        ]
        read = [numbers[each] for each in node.inputs]
        for each in node.outputs:
            numbers[each] = len(numbers)
        parts.append((node.domain, node.op_type, tuple(read), tuple(attributes), len(node.outputs)))
    return len(numbers), tuple(parts), tuple(numbers[each] for each in outputs)


def _attribute(numbers: dict[onnx_ir.Value | None, int], attribute: onnx_ir.Attr) -> Any:
    value = attribute.value
    if attribute.type == onnx_ir.AttributeType.TENSOR:
        return str(value.dtype), tuple(value.shape), value.tobytes()
    if attribute.type == onnx_ir.AttributeType.GRAPH:
        known = dict(numbers)
        for each in value.inputs:
            known[each] = len(known)
        return _form(known, value, value.outputs)
    if attribute.type == onnx_ir.AttributeType.GRAPHS:
        raise AssertionError("no operator of ONNX that is written here has several graphs")
    return repr(value)
