"""An IR as a JSON document, and back.

Ordered mappings of an IR are arrays in the document, because a JSON object has no order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from layergraph.ir import Graph, Implementation, Ir, Node, Packing, TensorSpec
from layergraph.ir.from_nodes import reads_each_once
from layergraph.ir.graph import (
    reads_its_predecessor,
)
from layergraph.ir.mapping import Implementations
from layergraph.ir.modes import changes_of_mode
from layergraph.ir.stated_arguments import stated_arguments
from layergraph_files.graph_reader import GraphReader, derived_edges
from layergraph_files.parse_errors import JsonPath, ParseError, expect, expect_fields
from layergraph_files.values import (
    decode_bytes,
    encode,
    encode_bytes,
    read_items,
    read_name,
    read_names,
    read_values,
)
from layergraph_files.versions import FORMAT, version_for

WriteValue = Callable[[TensorSpec], Any]
ReadValue = Callable[[Any, JsonPath], bytes]

_GRAPH = "nodes edges"
_IMPLEMENTATION = f"data training kept_modes children tensors {_GRAPH} evaluation"
_FLAGS = dict.fromkeys(("requires_grad", "persistent", "narrows"), bool)
_TENSOR: dict[str, type] = {"shape": list, "stride": list, **_FLAGS}


def inline(spec: TensorSpec) -> str:
    """Return the value of a tensor as text, for text files."""
    return encode_bytes(spec.value or b"")


def to_document(
    ir: Implementations,
    functions: Mapping[str, str],
    write_value: WriteValue = inline,
    kinds: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the document of an IR.

    Args:
        ir: a checked IR.
        functions: for each function of a plugin that the graphs call, the name of the plugin's
            distribution.
        write_value: a function that returns the JSON form of a tensor's value.
        kinds: for each tensor kind in the IR, the name of the distribution that lists it.
    """
    document: dict[str, Any] = {"format": FORMAT, "version": version_for(ir), "root": ir.root}
    if functions:
        document["functions"] = dict(functions)
    if kinds:
        document["tensor_kinds"] = dict(kinds)
    training = changes_of_mode(ir, ir.root)
    document["implementations"] = [
        _implementation(each, training.get(name), write_value) for name, each in ir.items()
    ]
    return document


def _implementation(
    each: Implementation, training: bool | None, write_value: WriteValue
) -> dict[str, Any]:
    form: dict[str, Any] = {"name": each.name, "type": each.type}
    if each.data:
        form["data"] = _encoded(each.data)
    if training is not None:
        form["training"] = training
    if each.kept_modes:
        form["kept_modes"] = [list(pair) for pair in each.kept_modes.items()]
    if each.children is not None:
        form["children"] = [list(pair) for pair in each.children.items()]
    if each.tensors:
        form["tensors"] = [_tensor(name, spec, write_value) for name, spec in each.tensors.items()]
    form |= _graph(each)
    if each.evaluation is not None:
        form["evaluation"] = _graph(each.evaluation)
    return form


def _tensor(name: str, spec: TensorSpec, write_value: WriteValue) -> dict[str, Any]:
    form: dict[str, Any] = {"name": name}
    for field, value in spec.said().items():
        form[field] = list(value) if type(value) is tuple else value
    if spec.value is not None:
        form["value"] = write_value(spec)
    if spec.packed is not None:
        parts = [_tensor(part, each, write_value) for part, each in spec.packed.parts.items()]
        form["packed"] = {"kind": spec.packed.kind, "parts": parts}
        if spec.packed.data:
            form["packed"]["data"] = _encoded(spec.packed.data)
    return form


def _graph(graph: Graph) -> dict[str, Any]:
    form: dict[str, Any] = {}
    if not graph.nodes and not graph.edges:
        return form
    inputs = {
        name: [arg.node for arg in node.args or ()]
        for name, node in graph.nodes.items()
        if not node.kwargs
        and (reads_its_predecessor(node) or (node.args is not None and reads_each_once(node.args)))
    }
    for src, sink in graph.edges:
        if sink in inputs and graph.nodes[sink].args is None:
            inputs[sink].append(src)
    # The document lists edges only if a reader could not derive them from the nodes.
    are_derived = list(derived_edges(graph.nodes.values(), inputs)) == list(graph.edges)
    are_derived = are_derived and not any(edge.data for edge in graph.edges.values())
    if graph.nodes:
        form["nodes"] = [
            _node(node, inputs.get(name) if are_derived else None)
            for name, node in graph.nodes.items()
        ]
    if not are_derived:
        form["edges"] = [
            {"src": edge.src, "sink": edge.sink}
            | ({"data": _encoded(edge.data)} if edge.data else {})
            for edge in graph.edges.values()
        ]
    return form


def _node(node: Node, inputs: list[str] | None) -> dict[str, Any]:
    form: dict[str, Any] = {
        "name": node.name,
        "type": node.type,
        "implementation": node.implementation,
    }
    if inputs:
        form["inputs"] = inputs
    elif (args := stated_arguments(node)) is not None:
        form["args"] = [encode(each) for each in args]
    if node.kwargs:
        form["kwargs"] = _encoded(node.kwargs)
    if node.when is not None:
        condition, expected = node.when
        form["when"] = [condition.node, expected]
    if node.data:
        form["data"] = _encoded(node.data)
    return form


def _encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: encode(value) for name, value in values.items()}


def read_inline(form: Any, spot: JsonPath) -> bytes:
    """Return the value of a tensor in a text file.

    Raises:
        ParseError: the form is not bytes in base64.
    """
    return decode_bytes(form, spot)


def from_document(document: Any, read_value: ReadValue = read_inline) -> Ir:
    """Return the IR of a document of the current version, without checking the IR's rules.

    Args:
        document: the parsed JSON.
        read_value: a function that returns the value of a tensor from its JSON form.

    Raises:
        ParseError: the document has another form.
        InvalidIrError: two implementations have one name, or the root is missing.
    """
    fields = expect_fields(
        document, None, "format version root implementations", "functions tensor_kinds"
    )
    functions(document)
    tensor_kinds(document)
    graphs = GraphReader()
    implementations = read_items(
        fields["implementations"],
        (None, "implementations"),
        lambda form, spot: _read_implementation(form, spot, read_value, graphs),
    )
    return Ir(implementations.values(), read_name(fields["root"], (None, "root"), "a name"))


def functions(document: Any) -> dict[str, str]:
    """Return, for each function of a plugin that a document calls, the plugin's distribution.

    Raises:
        ParseError: the field ``functions`` has another form.
    """
    return _homes(document, "functions")


def tensor_kinds(document: Any) -> dict[str, str]:
    """Return, for each tensor kind in a document, the distribution that lists the kind.

    Raises:
        ParseError: the field ``tensor_kinds`` has another form.
    """
    return _homes(document, "tensor_kinds")


def _homes(document: Any, field: str) -> dict[str, str]:
    spot: JsonPath = (None, field)
    homes: dict[str, str] = expect(document.get(field, {}), dict, spot, "distributions by name")
    for name, distribution in homes.items():
        expect(distribution, str, (spot, name), "the name of a distribution")
    return homes


def _read_implementation(
    form: Any, spot: JsonPath, read_value: ReadValue, graphs: GraphReader
) -> Implementation:
    fields = expect_fields(form, spot, "name type", _IMPLEMENTATION)
    graph = graphs.read(fields, spot)
    evaluation = fields.get("evaluation")
    if evaluation is not None:
        here = (spot, "evaluation")
        evaluation = graphs.read(expect_fields(evaluation, here, "", _GRAPH), here)
    name, kind = read_names(fields, spot, "name", "type")
    return Implementation(
        name=name,
        type=kind,
        data=read_values(fields, spot, "data"),
        nodes=graph.nodes,
        edges=graph.edges,
        evaluation=evaluation,
        children=_children(fields["children"], (spot, "children"))
        if "children" in fields
        else None,
        tensors=read_items(
            fields.get("tensors", []),
            (spot, "tensors"),
            lambda each, where: _read_tensor(each, where, read_value),
        ),
        training=expect(fields["training"], bool, (spot, "training"), "true or false")
        if "training" in fields
        else None,
        kept_modes=_kept_modes(fields["kept_modes"], (spot, "kept_modes"))
        if "kept_modes" in fields
        else {},
    )


def _kept_modes(form: Any, spot: JsonPath) -> dict[str, bool | None]:
    kept: dict[str, bool | None] = {}
    for index, pair in enumerate(expect(form, list, spot, "an array of modes")):
        here = (spot, index)
        if len(expect(pair, list, here, "a path and a mode")) != 2:
            raise ParseError(here, f"there are {len(pair)} items", "write a path and a mode")
        path = expect(pair[0], str, (here, 0), "a path")
        if path in kept:
            raise ParseError(here, f"the path {path!r} appears twice", "write it once")
        kept[path] = None if pair[1] is None else expect(pair[1], bool, (here, 1), "true or false")
    return kept


def _children(form: Any, spot: JsonPath) -> dict[str, str]:
    children: dict[str, str] = {}
    for index, pair in enumerate(expect(form, list, spot, "an array of children")):
        here = (spot, index)
        if len(expect(pair, list, here, "a name and an implementation")) != 2:
            raise ParseError(
                here, f"there are {len(pair)} items", "write a name and an implementation"
            )
        name, target = (read_name(each, (here, n), "a name") for n, each in enumerate(pair))
        if name in children:
            raise ParseError(here, f"the child {name!r} appears twice", "give each its own name")
        children[name] = target
    return children


def _read_tensor(form: Any, spot: JsonPath, read_value: ReadValue) -> TensorSpec:
    fields = expect_fields(form, spot, "name", " ".join(TensorSpec.__slots__))
    read_names(fields, spot, "name")
    spec = {name: each for name, each in fields.items() if name not in _NESTED}
    for name, each in spec.items():
        here = (spot, name)
        if name not in _TENSOR:
            read_name(each, here, "a value of this type")
        expect(each, _TENSOR.get(name, str), here, "a value of this type")
        if type(each) is list:
            for index, size in enumerate(each):
                expect(size, int, (here, index), "a size")
            spec[name] = tuple(each)
    if "value" in fields:
        spec["value"] = read_value(fields["value"], (spot, "value"))
    if "packed" in fields:
        spec["packed"] = _read_packing(fields["packed"], (spot, "packed"), read_value)
    return TensorSpec(**spec)


_NESTED = ("name", "value", "packed")
# The fields of a part. A part is a plain tensor: it has no parts itself.
_PART = "shape stride dtype value"


def _read_packing(form: Any, spot: JsonPath, read_value: ReadValue) -> Packing:
    fields = expect_fields(form, spot, "kind parts", "data")

    def read_part(part: Any, here: JsonPath) -> TensorSpec:
        expect_fields(part, here, "name", _PART)
        return _read_tensor(part, here, read_value)

    return Packing(
        kind=read_names(fields, spot, "kind")[0],
        parts=read_items(fields["parts"], (spot, "parts"), read_part),
        data=read_values(fields, spot, "data"),
    )
