"""Convert an IR to the IR of elasticai-creator, and back.

In their IR, a graph is a set of named nodes and a set of edges. A node names an implementation in
the registry, calls it, and reads its predecessors. The implementation has the attributes of the
layer. Weights stay in the state dict.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from layergraph.errors import ArgumentError
from layergraph.ir import FUNCTION, Edge, Graph, Ir, Node, Ref, check
from layergraph.ir.graph import MODULE

# The fields of our implementations that theirs keep as attributes.
_CONTAINER, _TENSORS, _ARGS = "container", "tensors", "args"
_LOST = ("kwargs", "when")


def to_creator(ir: Ir) -> tuple[Any, dict[str, Any]]:
    """Convert an IR to the IR of elasticai-creator.

    Args:
        ir: the IR. Its graphs may only call layers, with values of other nodes as arguments. If a
            node does not simply read its one predecessor, its attribute ``args`` lists its reads.

    Returns:
        The implementation of the whole model, and all others by name: objects of
        ``elasticai.creator.torch2ir.Implementation``, with attributes, nodes and edges in ``data``.

    Raises:
        ArgumentError: their IR cannot describe some nodes. The message lists all.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph_creator import to_creator
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3))
        >>> root, registry = to_creator(lg.to_ir(model))  # doctest: +SKIP
        >>> root.data["edges"], registry["0"].type  # doctest: +SKIP
        ({'input_1': {'_0': {}}, '_0': {'output': {}}}, 'linear')
    """
    if sys.version_info < (3, 12):
        raise ArgumentError("the IR of elasticai-creator needs Python 3.12; save a .creator.json")
    from elasticai.creator.graph import BaseGraph
    from elasticai.creator.torch2ir import Implementation

    forms = forms_of(ir)
    made: dict[str, Any] = {}
    for name, form in forms.items():
        made[name] = Implementation(graph=BaseGraph(), data=dict(form))
        for node in form["nodes"]:
            made[name].graph.add_node(node)
        for src, sinks in form["edges"].items():
            for dst in sinks:
                made[name].graph.add_edge(src, dst)
    root = made.pop(ir.root)
    return root, made


def forms_of(ir: Ir) -> dict[str, dict[str, Any]]:
    """Return the dict of each implementation in their IR, by name.

    Raises:
        ArgumentError: their IR cannot describe some nodes. The message lists all.
    """
    problems: list[str] = []
    forms = {name: _to_their_form(each, problems) for name, each in ir.to_dict().items()}
    if problems:
        listed = "\n".join(f"  {each}" for each in problems)
        raise ArgumentError(f"the IR of elasticai-creator lacks:\n{listed}")
    return forms


def _to_their_form(ours: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    form = {name: each for name, each in ours.items() if name not in ("nodes", "edges", _TENSORS)}
    place = f"implementation {ours['name']!r}"
    if "evaluation" in form:
        problems.append(f"{place}: two graphs; take one, with ir.in_mode(training=False)")
    if form.get("kept_modes"):
        problems.append(f"{place}: modules that train() leaves in their mode")
    if ours["nodes"] and form["type"] != MODULE:
        form |= {"type": MODULE, _CONTAINER: form["type"]}
    if _TENSORS in ours:
        form[_TENSORS] = {name: _spec_with_text(spec) for name, spec in ours[_TENSORS].items()}
    form["nodes"] = {
        name: _to_their_node(each, f"{place}, node {name!r}", problems)
        for name, each in ours["nodes"].items()
    }
    form["edges"] = {}
    for (src, dst), edge in ours["edges"].items():
        data = {key: each for key, each in edge.items() if key not in ("src", "sink")}
        form["edges"].setdefault(src, {})[dst] = data
    return form


def _to_their_node(ours: dict[str, Any], place: str, problems: list[str]) -> dict[str, Any]:
    form = {name: each for name, each in ours.items() if name not in ("name", *_LOST)}
    problems += [
        f"{place}: {name}={ours[name]!r:.80}; let it read values of nodes only"
        for name in _LOST
        if ours.get(name)
    ]
    if ours["type"] == "state":
        problems.append(f"{place}: it reads a tensor; let a layer read it")
    given = ours.get(_ARGS)
    if given is not None:
        if not all(type(each) is Ref for each in given):
            problems.append(
                f"{place}: the arguments {given!r:.80}; let it read values of nodes only"
            )
        form[_ARGS] = [getattr(each, "node", None) for each in given]
    return form


def _spec_with_text(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: each.hex() if type(each) is bytes else each for key, each in spec.items()}


def from_creator(root: Any, registry: Any = ()) -> Ir:
    """Convert an IR of elasticai-creator to an IR.

    Args:
        root: the implementation of the whole model: an object of elasticai-creator, before and
            after its rules, or the dict that its serializer makes.
        registry: the other implementations: a mapping by name, or all of them in any order.

    Raises:
        ArgumentError: a node reads several others, and has no attribute ``args`` that orders them.
        InvalidIrError: the result breaks a rule of IRs.

    Example:
        >>> from layergraph_creator import from_creator
        >>> nodes = {name: {"type": name, "implementation": name} for name in ("input", "output")}
        >>> nodes["fc"] = {"type": "linear", "implementation": "fc"}
        >>> edges = {"input": {"fc": {}}, "fc": {"output": {}}}
        >>> layer = {"attributes": {"type": "linear", "in_features": 1, "out_features": 2}}
        >>> print(from_creator({"nodes": nodes, "edges": edges}, {"fc": layer}))
        root: module()
            input = input
            fc = linear fc(input)
            return fc
        fc: linear(in_features=1, out_features=2)
    """
    if isinstance(registry, Mapping):
        named = dict(registry)
    else:
        named = {str(_data_of(each).get("name", "")): each for each in registry}
    first = _data_of(root)
    name = str(first.get("name") or "root")
    forms = {name: _to_our_form(name, {"type": MODULE, **first})}
    for key, each in named.items():
        form = _data_of(each)
        if each is not root and form != first:
            forms[str(key)] = _to_our_form(str(key), form)
    ir = Ir.from_dict(forms)
    ir = Ir(ir.values(), root=name)
    for each in ir.values():
        kind = each.data.pop(_CONTAINER, None)
        # A rule of theirs may have changed the graph, so that the class no longer fits.
        runs = list((each.children or {}).values())
        if isinstance(kind, str) and all(graph.chain() == runs for graph in each.graphs):
            each.type = kind
    check(ir)
    return ir


def _data_of(theirs: Any) -> dict[str, Any]:
    """Return attributes, nodes and edges of one of their implementations, in one dict."""
    if isinstance(theirs, Mapping):
        rest = {key: each for key, each in theirs.items() if key != "attributes"}
        stated = theirs.get("attributes", {})
        if not isinstance(stated, Mapping):
            raise ArgumentError(f"its attributes are a {type(stated).__name__}, and no dict")
        return {"nodes": {}, "edges": {}, **stated, **rest}
    data = getattr(theirs, "data", None)
    graph = getattr(theirs, "graph", None)
    if not isinstance(data, Mapping) or graph is None:
        raise ArgumentError(
            f"a {type(theirs).__name__} stands where an implementation of elasticai-creator belongs"
        )
    # Their rules change the graph but not the data, so the graph lists the nodes and edges.
    nodes, edges = data.get("nodes", {}), data.get("edges", {})
    found: dict[str, dict[str, Any]] = {}
    for src, dst in graph.iter_edges():
        found.setdefault(src, {})[dst] = edges.get(src, {}).get(dst, {})
    return {**data, "nodes": {name: nodes.get(name, {}) for name in graph.nodes}, "edges": found}


def _to_our_form(name: str, theirs: dict[str, Any]) -> dict[str, Any]:
    form: dict[str, Any] = {**theirs, "name": name}
    place = f"implementation {name!r}"
    nodes, edges = (_mapping(form.pop(key), f"{place}, {key}") for key in ("nodes", "edges"))
    pairs = {
        (src, dst): {**_mapping(data, f"{place}, edge {src!r}"), "src": src, "dst": dst}
        for src, sinks in edges.items()
        for dst, data in _mapping(sinks, f"{place}, edges of {src!r}").items()
    }
    before: dict[str, list[str]] = {}
    for src, dst in pairs:
        before.setdefault(dst, []).append(src)
    order = _in_order(nodes, pairs)
    form["nodes"] = {
        each: _to_our_node(each, nodes[each], before.get(each, []), f"{place}, node {each!r}")
        for each in order
    }
    # In our IR, the edges follow the order of the arguments.
    read = [
        (src, each)
        for each in order
        for src in _sources_of(form["nodes"][each]) or before.get(each, [])
    ]
    form["edges"] = {pair: pairs[pair] for pair in [*read, *pairs] if pair in pairs}
    if isinstance(form.get(_TENSORS), Mapping):
        form[_TENSORS] = {key: _spec(each, place) for key, each in form[_TENSORS].items()}
    return form


def _to_our_node(name: str, data: Any, before: list[str], place: str) -> dict[str, Any]:
    form = {**_mapping(data, place), "name": name}
    form.setdefault("implementation", name)
    given = form.pop(_ARGS, None)
    if given is not None and sorted(set(map(str, given))) == sorted(before):
        form[_ARGS] = [Ref(str(each)) for each in given]
    elif len(before) > 1:
        raise ArgumentError(
            f"{place}: it reads {', '.join(sorted(before))}, and their IR does not order what a "
            "node reads; list it as the attribute 'args' of the node"
        )
    return form


def _sources_of(node: dict[str, Any]) -> list[str]:
    return [each.node for each in node.get(_ARGS, ())]


def _in_order(nodes: Iterable[str], pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Sort nodes topologically, and keep the given order where the edges allow it."""
    graph = Graph(
        nodes={name: Node(name, FUNCTION, name) for name in nodes},
        edges={each: Edge(*each) for each in pairs},
    )
    order = [node.name for node in graph.in_execution_order()]
    left = set(graph.nodes).difference(order)
    return [*order, *(name for name in graph.nodes if name in left)]  # `check` reports a cycle


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ArgumentError(
            f"{place}: a {type(value).__name__} stands where a dict of names belongs"
        )
    return dict(value)


def _spec(theirs: Any, place: str) -> dict[str, Any]:
    spec = _mapping(theirs, f"{place}, tensors")
    if "value" in spec:
        try:
            spec["value"] = bytes.fromhex(spec["value"])
        except (TypeError, ValueError):
            raise ArgumentError(f"{place}: the value of a tensor is no hexadecimal text") from None
    return spec
