"""The version of the format, and migrations from older ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from layergraph.ir import BODY, STATE
from layergraph.ir.mapping import Implementations
from layergraph_files.parse_errors import JsonPath, ParseError, expect

FORMAT = "layergraph"
VERSION = 6


def version_for(ir: Implementations) -> int:
    """Return the lowest version that can hold an IR, so that older releases read the file."""
    nodes = [node for each in ir.values() for graph in each.graphs for node in graph.nodes.values()]
    # Nearly all graphs state the arguments of each node.
    if any(node.sets_state or node.args is None for node in nodes) and _sets_states(ir):
        return 6
    specs = [spec for each in ir.values() for spec in each.tensors.values()]
    if any(spec.narrows is not None for spec in specs):
        return 5
    if any(spec.packed is not None for spec in specs):
        return 4
    if any(each.type == BODY for each in ir.values()):
        return 3
    return 2 if any(node.when is not None for node in nodes) else 1


def _sets_states(ir: Implementations) -> bool:
    """Return whether a node sets a tensor, to an argument or to the value at its edge."""
    graphs = [graph for each in ir.values() for graph in each.graphs]
    sinks = [graph.nodes.get(name) for graph in graphs for _, name in graph.edges]
    sets = any(node.sets_state for graph in graphs for node in graph.nodes.values())
    return sets or any(node is not None and node.type == STATE for node in sinks)


def _to_version_2(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of version 1 as it is: version 2 reads the same, and adds conditions.

    Raises:
        ParseError: a node has a condition.
    """
    for graph, place in _graphs(document):
        for number, node in enumerate(_listed(graph, "nodes")):
            if isinstance(node, dict) and "when" in node:
                raise ParseError(
                    (((place, "nodes"), number), "when"),
                    "version 1 of the format has no conditions",
                    'write "version": 2',
                )
    return document


def _to_version_3(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of version 2 as it is: version 3 reads the same, and adds bodies.

    Raises:
        ParseError: an implementation is a body.
    """
    for index, each in enumerate(_listed(document, "implementations")):
        if _field(each, "type") == BODY:
            spot: JsonPath = (((None, "implementations"), index), "type")
            message = "versions 1 and 2 of the format have no bodies"
            raise ParseError(spot, message, 'write "version": 3')
    return document


def _to_version_4(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of version 3 as it is: version 4 reads the same, and adds packed tensors.

    Raises:
        ParseError: a tensor has parts.
    """
    spot: JsonPath = (None, "implementations")
    remedy = 'write "version": 4'
    if "tensor_kinds" in document:
        message = "versions 1 to 3 of the format have no kinds of tensors"
        raise ParseError((None, "tensor_kinds"), message, remedy)
    for index, each in enumerate(_listed(document, "implementations")):
        for number, tensor in enumerate(_listed(each, "tensors")):
            if isinstance(tensor, dict) and "packed" in tensor:
                here = ((((spot, index), "tensors"), number), "packed")
                raise ParseError(here, "versions 1 to 3 of the format have no parts", remedy)
    return document


def _to_version_5(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of version 4 as it is: version 5 reads the same, and adds ``narrows``.

    Raises:
        ParseError: a tensor has the field ``narrows``.
    """
    spot: JsonPath = (None, "implementations")
    for index, each in enumerate(_listed(document, "implementations")):
        for number, tensor in enumerate(_listed(each, "tensors")):
            if isinstance(tensor, dict) and "narrows" in tensor:
                here = ((((spot, index), "tensors"), number), "narrows")
                message = "versions 1 to 4 of the format have no tensors that keep their dtype"
                raise ParseError(here, message, 'write "version": 5')
    return document


def _to_version_6(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of version 5 as it is: version 6 reads the same, and sets states.

    Raises:
        ParseError: a node of type ``state`` takes an argument.
    """
    for graph, place in _graphs(document):
        sinks = {str(_field(each, "sink")) for each in _listed(graph, "edges")}
        for number, node in enumerate(_listed(graph, "nodes")):
            # Without a list of arguments, the edges say them.
            args = _field(node, "args")
            by_edges = args is None and str(_field(node, "name")) in sinks
            if _field(node, "type") == STATE and (args or by_edges or _field(node, "inputs")):
                raise ParseError(
                    ((place, "nodes"), number),
                    "versions 1 to 5 of the format have no nodes that set a tensor",
                    'write "version": 6',
                )
    return document


def _graphs(document: dict[str, Any]) -> Iterator[tuple[Any, JsonPath]]:
    """Yield the form of each graph of a document, and its place."""
    spot: JsonPath = (None, "implementations")
    for index, each in enumerate(_listed(document, "implementations")):
        here: JsonPath = (spot, index)
        yield each, here
        yield _field(each, "evaluation"), (here, "evaluation")


def _field(form: Any, name: str) -> Any:
    return form.get(name) if isinstance(form, dict) else None


def _listed(form: Any, name: str) -> list[Any]:
    """Return an array of an unchecked document; an empty list if the field is not an array."""
    found = _field(form, name)
    return found if isinstance(found, list) else []


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _to_version_2,
    2: _to_version_3,
    3: _to_version_4,
    4: _to_version_5,
    5: _to_version_6,
}
"""For each version, the function that turns a document of it into one of the next version."""


def current(document: Any) -> dict[str, Any]:
    """Return a document in the current version of the format.

    Args:
        document: the parsed JSON, perhaps of an older version.

    Raises:
        ParseError: the file is not a layergraph model, or its version is newer than this release.
    """
    fields: dict[str, Any] = expect(document, dict, None, "a document of layergraph")
    if fields.get("format") != FORMAT:
        raise ParseError(None, "it is not a layergraph model", f'its "format" must be "{FORMAT}"')
    spot: JsonPath = (None, "version")
    version = expect(fields.get("version"), int, spot, "the version of the format")
    if version > VERSION:
        remedy = f"this layergraph reads up to {VERSION}: update it (pip install -U layergraph)"
        raise ParseError(spot, f"the file is of version {version}", remedy)
    for number in range(version, VERSION):
        if number not in MIGRATIONS:
            break
        fields = MIGRATIONS[number](fields)
    else:
        if version >= 1:
            return {**fields, "version": VERSION}
    raise ParseError(spot, f"there is no version {version}", f"the current one is {VERSION}")
