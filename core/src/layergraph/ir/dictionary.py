"""The dict form of an IR, which users read and write by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layergraph.errors import InvalidIrError, Place, Problem, brief
from layergraph.ir.edges import Edge
from layergraph.ir.graph import (
    Graph,
    Implementation,
    Node,
)
from layergraph.ir.mapping import ROOT, Implementations
from layergraph.ir.stated_arguments import stated_arguments, with_arguments
from layergraph.ir.submodules import children_to_state
from layergraph.ir.tensor_spec import Packing, TensorSpec
from layergraph.ir.values import Ref, copied

NODE_FIELDS = ("name", "type", "implementation", "args", "kwargs", "when")
EDGE_FIELDS = ("src", "sink")
GRAPH_FIELDS = ("nodes", "edges")
IMPLEMENTATION_FIELDS = (
    "name",
    "type",
    *GRAPH_FIELDS,
    "evaluation",
    "children",
    "tensors",
    "training",
    "kept_modes",
)


def to_dict(ir: Implementations) -> dict[str, dict[str, Any]]:
    """Return the dict form of an IR: see :meth:`layergraph.Ir.to_dict`."""
    # If a submodule is named "root", the root has another name, and comes first with its children
    # stated: so from_dict can find it.
    renamed = [ir.root] if ir.root != ROOT else []
    stated = children_to_state(ir, ir.root, always=renamed)
    names = [ir.root, *(name for name in ir if name != ir.root)] if renamed else list(ir)
    return {name: _implementation_to_dict(ir[name], stated.get(name)) for name in names}


def _implementation_to_dict(
    implementation: Implementation, children: dict[str, str] | None
) -> dict[str, Any]:
    form: dict[str, Any] = {"name": implementation.name, "type": implementation.type}
    form |= copied(implementation.data)
    if children is not None:
        form["children"] = dict(children)
    if implementation.training is not None:
        form["training"] = implementation.training
    if implementation.kept_modes:
        form["kept_modes"] = dict(implementation.kept_modes)
    if implementation.tensors:
        form["tensors"] = {name: spec.said() for name, spec in implementation.tensors.items()}
    form |= _graph_to_dict(implementation)
    if implementation.evaluation is not None:
        form["evaluation"] = _graph_to_dict(implementation.evaluation)
        if implementation.differs is not None:
            form["evaluation"]["differs"] = sorted(implementation.differs)
    return form


def _graph_to_dict(graph: Graph) -> dict[str, Any]:
    return {
        "nodes": {name: _node_to_dict(node) for name, node in graph.nodes.items()},
        "edges": {
            pair: {"src": edge.src, "sink": edge.sink, **copied(edge.data)}
            for pair, edge in graph.edges.items()
        },
    }


def _node_to_dict(node: Node) -> dict[str, Any]:
    form: dict[str, Any] = {
        "name": node.name,
        "type": node.type,
        "implementation": node.implementation,
    }
    args = stated_arguments(node)
    if args is not None:
        form["args"] = copied(args)
    if node.kwargs:
        form["kwargs"] = copied(node.kwargs)
    if node.when is not None:
        form["when"] = node.when
    form |= copied(node.data)
    return form


def from_dict(form: Mapping[str, Mapping[str, Any]]) -> tuple[list[Implementation], str]:
    """Return the implementations of a dict form, and the name of the root.

    See :meth:`layergraph.Ir.from_dict`.
    """
    reader = _Reader()
    implementations = [
        reader.implementation(name, entry)
        for name, entry in reader.mapping(Place("the IR"), form, "implementations by name").items()
    ]
    if reader.problems:
        raise InvalidIrError(reader.problems)
    return implementations, _root(implementations)


def _root(implementations: list[Implementation]) -> str:
    named = any(ROOT in (each.children or {}).values() for each in implementations)
    return implementations[0].name if named else ROOT


class _Reader:
    """A reader of the dict form that collects all problems instead of raising at the first."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def refuse(self, place: Place, message: str, remedy: str) -> None:
        self.problems.append(Problem(place, message, remedy))

    def mapping(self, place: Place, form: object, of: str) -> dict[Any, Any]:
        if isinstance(form, Mapping):
            return dict(form)
        self.refuse(place, f"{_kind(form)} where a dict of {of} belongs", "write a dict")
        return {}

    def copied(self, place: Place, value: Any) -> Any:
        try:
            return copied(value)
        except RecursionError:
            message = "a value in it is nested too deeply, or contains itself"
            self.refuse(place, message, "nest it less deeply")
            return type(value)()

    def rest(
        self, place: Place, entry: Mapping[Any, Any], fields: tuple[str, ...]
    ) -> dict[str, Any]:
        for key in entry:
            if not isinstance(key, str):
                self.refuse(place, f"the key {key!r} is no str", "name attributes by strings")
        return {key: value for key, value in entry.items() if key not in fields}

    def names(self, place: Place, key: object, entry: Mapping[Any, Any]) -> str:
        name = entry.get("name")
        if name != key or not isinstance(name, str):
            self.refuse(
                place, f"its key is {key!r} and its name {name!r}", "give both the same string"
            )
        return str(key)

    def text(self, place: Place, entry: Mapping[Any, Any], key: str) -> str:
        value = entry.get(key)
        if isinstance(value, str):
            return value
        status = "is missing" if key not in entry else f"is {_kind(value)}, no str"
        self.refuse(place, f"its {key!r} {status}", f"write a string as {key!r}")
        return ""

    def implementation(self, key: object, form: object) -> Implementation:
        place = Place("implementation", key)
        entry = self.mapping(place, form, "fields and attributes")
        if not entry:
            entry = {"name": key, "type": ""}
        tensors = self.mapping(place.at("tensors"), entry.get("tensors", {}), "tensors by name")
        graph = self.graph(place, entry)
        evaluation, differs = entry.get("evaluation"), None
        if evaluation is not None:
            within = place.at("evaluation")
            form = self.mapping(within, evaluation, "nodes and edges")
            differs = self.differs(within, form)
            for field in form.keys() - {*GRAPH_FIELDS, "differs"}:
                self.refuse(within, f"{field!r} is no part of a graph", "write nodes and edges")
            evaluation = self.graph(within, form)
        children = entry.get("children")
        if children is not None:
            children = self.mapping(place.at("children"), children, "implementations by child name")
        return Implementation(
            name=self.names(place, key, entry),
            type=self.text(place, entry, "type"),
            data=self.copied(place, self.rest(place, entry, IMPLEMENTATION_FIELDS)),
            nodes=graph.nodes,
            edges=graph.edges,
            evaluation=evaluation,
            differs=differs,
            children=children,
            tensors={name: self.tensor(place, name, spec) for name, spec in tensors.items()},
            training=entry.get("training"),
            kept_modes=self.mapping(
                place.at("kept_modes"), entry.get("kept_modes", {}), "modes by path"
            ),
        )

    def differs(self, place: Place, form: Mapping[Any, Any]) -> set[str] | None:
        names = form.get("differs")
        if names is None:
            return None
        if isinstance(names, list | tuple | set) and all(isinstance(each, str) for each in names):
            return set(names)
        self.refuse(place, f"its 'differs' is {names!r:.60}", "list the names of nodes")
        return None

    def graph(self, place: Place, entry: Mapping[Any, Any]) -> Graph:
        nodes = self.mapping(place.at("nodes"), entry.get("nodes", {}), "nodes by name")
        edges = self.mapping(place.at("edges"), entry.get("edges", {}), "edges by (src, sink)")
        return with_arguments(
            Graph(
                nodes={name: self.node(place, name, node) for name, node in nodes.items()},
                edges={pair: self.edge(place, pair, edge) for pair, edge in edges.items()},
            )
        )

    def node(self, place: Place, key: object, form: object) -> Node:
        place = place.at("node", key)
        entry = self.mapping(place, form, "fields")
        args = entry.get("args")
        if args is not None and not isinstance(args, list | tuple):
            self.refuse(place, f"its 'args' are {_kind(args)}", "write a list of arguments")
            args = None
        return Node(
            name=self.names(place, key, entry),
            type=self.text(place, entry, "type"),
            implementation=self.text(place, entry, "implementation"),
            args=None if args is None else self.copied(place, tuple(args)),
            kwargs=self.copied(
                place, self.mapping(place.at("kwargs"), entry.get("kwargs", {}), "arguments")
            ),
            data=self.copied(place, self.rest(place, entry, NODE_FIELDS)),
            when=self.when(place, entry.get("when")),
        )

    def when(self, place: Place, form: object) -> tuple[Ref, bool] | None:
        if form is None:
            return None
        if isinstance(form, list | tuple) and [*map(type, form)] == [Ref, bool]:
            return form[0], form[1]
        self.refuse(
            place,
            f"its 'when' is {brief(form)}",
            "write a condition and what it has to be, as in (Ref('truth'), True)",
        )
        return None

    def edge(self, place: Place, key: object, form: object) -> Edge:
        place = place.at("edge", key)
        entry = self.mapping(place, form, "fields")
        if "sink" not in entry and "dst" in entry:
            entry["sink"] = entry.pop("dst")
        src, sink = self.text(place, entry, "src"), self.text(place, entry, "sink")
        if key != (src, sink):
            self.refuse(
                place,
                f"its key differs from its src and sink, {(src, sink)!r}",
                "key edges by (src, sink)",
            )
        return Edge(src, sink, self.copied(place, self.rest(place, entry, EDGE_FIELDS)))

    def tensor(self, place: Place, key: object, form: object) -> TensorSpec:
        place = place.at("tensor", key)
        entry = self.mapping(place, form, "what there is to say of the tensor")
        known = {name: value for name, value in entry.items() if name in TensorSpec.__slots__}
        for name in entry.keys() - known.keys():
            self.refuse(
                place,
                f"{name!r} is not a field of a tensor",
                f"leave it out; known are {', '.join(TensorSpec.__slots__)}",
            )
        for sizes in ("shape", "stride"):
            if isinstance(known.get(sizes), list):
                known[sizes] = tuple(known[sizes])
        if known.get("packed") is not None:
            known["packed"] = self.packing(place.at("packed"), known["packed"])
        return TensorSpec(**known)

    def packing(self, place: Place, form: object) -> Packing:
        entry = self.mapping(place, form, "kind, parts and data")
        parts = self.mapping(place.at("parts"), entry.get("parts", {}), "tensors by name")
        data = self.mapping(place.at("data"), entry.get("data", {}), "values by name")
        for name in self.rest(place, entry, ("kind", "parts", "data")):
            self.refuse(place, f"{name!r} is not a field of it", "write kind, parts and data")
        return Packing(
            kind=self.text(place, entry, "kind"),
            parts={name: self.tensor(place, name, spec) for name, spec in parts.items()},
            data=self.copied(place, data),
        )


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
