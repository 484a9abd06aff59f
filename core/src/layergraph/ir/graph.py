"""Nodes, graphs of nodes, and the implementations that they form."""

from __future__ import annotations

import heapq
import operator
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from layergraph.ir.edges import Edge, Edges, neighbours
from layergraph.ir.names import Namer, is_argument_name
from layergraph.ir.tensor_spec import TensorSpec
from layergraph.ir.values import Ref, Symbol, Value, bodies, map_leaves, refs

INPUT = "input"
OUTPUT = "output"
FUNCTION = "function"
STATE = "state"
MODULE = "module"
BODY = "body"

KEYWORD_ONLY = "layergraph.keyword_only"
"""The annotation, with the value True, of a keyword-only input of the root."""

CORE_NODE_TYPES = frozenset({INPUT, OUTPUT, FUNCTION, STATE})
"""The node types that call no implementation; every other node calls one."""


_HOLDS_NO_BODY = frozenset({Ref, Symbol, type(None), bool, int, float, str})


@dataclass(slots=True)
class Node:
    """One step of an implementation's graph.

    Attributes:
        name: unique in the graph.
        type: ``input``, ``output``, ``function`` (of torch), ``state`` (a tensor that the graph
            reads directly, or sets, if the node has an argument), else the type of the
            implementation that the node calls. In an IR, the type of a call is always that of its
            implementation.
        implementation: the target of the node. Of an input: the name of the parameter, if no other
            input has it (else the name of the node is used). Of a function: its name
            (``"torch.flatten"``). Of a state: its key in the state dict of the whole model. Of a
            call: the name of the implementation.
        args: positional arguments: nested plain values in which a :class:`Ref` stands for the value
            of another node. If you make a node with None, it reads its one predecessor, or nothing;
            with keyword arguments, it has no positional ones. A node that reads several nodes must
            state ``args``, because edges have no order.
        kwargs: keyword arguments, in the same form. Of an input, the known facts: ``default``, its
            default; ``fixed``, the only value that it may have; ``rank`` and ``dtype`` at capture.
        data: annotations of the user; layergraph keeps them.
        when: the condition of a function, a call, or a state that is set. With
            ``(Ref("truth"), True)``, the node runs only if the value of ``truth`` is True;
            otherwise its value is None. With None, it always runs. A node with a condition states
            its ``args``.
    """

    name: str
    type: str
    implementation: str
    args: tuple[Value, ...] | None = None
    kwargs: dict[str, Value] = field(default_factory=dict)
    data: dict[str, Value] = field(default_factory=dict)
    when: tuple[Ref, bool] | None = None
    _callee: Implementation | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def is_call(self) -> bool:
        """Return whether the node calls an implementation."""
        return self._callee is not None or self.type not in CORE_NODE_TYPES

    @property
    def sets_state(self) -> bool:
        """Return whether the node sets a tensor of the model to the value of its argument."""
        # A node that calls nothing has the type that it states; this is the quick way to read it.
        return _stated_type.__get__(self) == STATE and bool(self.args)

    def read_instead(self, src: str, other: str) -> None:
        """Replace one node by another in the arguments and the condition."""

        def leaf(value: Value) -> Value:
            return Ref(other) if type(value) is Ref and value.node == src else value

        self.args = map_leaves(leaf, self.args)
        self.kwargs = map_leaves(leaf, self.kwargs)
        if self.when is not None:
            self.when = map_leaves(leaf, self.when)

    def sources(self) -> list[str]:
        """Return the nodes that its arguments and its condition name, with repetitions."""
        return refs(*(self.args or ()), *self.kwargs.values(), *(self.when or ()))

    def bodies(self) -> list[str]:
        """Return the bodies that its arguments name, with repetitions."""
        given = self.args or ()
        if not self.kwargs and _HOLDS_NO_BODY.issuperset(map(type, given)):
            return []  # a quick exit for nearly all nodes
        return bodies(*given, *self.kwargs.values())


_stated_type: Any = vars(Node)["type"]


def _type(node: Node) -> Any:
    callee = node._callee
    return _stated_type.__get__(node) if callee is None else callee.type


def _state_type(node: Node, value: object) -> None:
    _stated_type.__set__(node, value)
    node._callee = None


# A dataclass with slots cannot declare a computed field.
setattr(Node, "type", property(_type, _state_type))  # noqa: B010 type checkers see a field


def bind_calls(graph: Graph, implementations: Mapping[str, Implementation]) -> bool:
    """Bind each call of a graph to its implementation, whose type it then has.

    A node that states another type is not changed; :func:`layergraph.ir.check` reports it.

    Args:
        graph: the graph.
        implementations: the implementations of an IR, by name.

    Returns:
        False if a node calls an implementation of another IR; then the graph has to be copied.
    """
    for node in graph.nodes.values():
        callee = implementations.get(node.implementation)
        bound = node._callee
        if bound is callee or (callee is None and bound is None):
            continue
        if bound is not None:
            return False
        stated = _stated_type.__get__(node)
        if callee is not None and stated == callee.type and stated not in CORE_NODE_TYPES:
            node._callee = callee
    return True


@dataclass(slots=True, eq=False)
class Graph:
    """Nodes and the edges between them.

    Two graphs are equal if they have equal nodes and edges in the same order. The order of nodes is
    the execution order.

    Attributes:
        nodes: name to node, in execution order.
        edges: (src, sink) to edge.
    """

    nodes: dict[str, Node] = field(default_factory=dict, kw_only=True)
    edges: dict[tuple[str, str], Edge] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        if type(self.edges) is dict:
            self.edges = Edges(self.edges)
        if type(self.edges) is Edges and type(self.nodes) is dict:
            self.edges = self.edges.of(self.nodes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph) or type(other) is not type(self):
            return NotImplemented
        return self._compared() == other._compared()

    __hash__ = None  # type: ignore[assignment]  # a graph can be edited

    def _compared(self) -> tuple[object, ...]:
        return list(self.nodes.items()), list(self.edges.items())

    def predecessors(self, name: str) -> tuple[str, ...]:
        """Return the nodes whose values the node reads, in edge order."""
        return tuple(neighbours(self.edges).sources.get(name, ()))

    def successors(self, name: str) -> tuple[str, ...]:
        """Return the nodes that read the node's value, in edge order."""
        return tuple(neighbours(self.edges).sinks.get(name, ()))

    def chain(self) -> list[str] | None:
        """Return the implementations that the graph calls in a chain; None if it is no chain.

        Each call has one argument, the result of the call before; the first call takes the one
        input, and the output returns the result of the last one.
        """
        arguments = self.arguments()
        called = []
        before: str | None = None
        for node in self.in_execution_order():
            given = () if before is None else (Ref(before),)
            fits = node.type == INPUT if before is None else node.is_call or node.type == OUTPUT
            if not fits or arguments[node.name] != given or (node.kwargs and node.type != INPUT):
                return None
            if node.when is not None:
                return None
            if node.is_call:
                called.append(node.implementation)
            before = node.name
        return called

    def parameters(self) -> dict[str, str]:
        """Return the parameter that each input node stands for, by name of the node, in order."""
        inputs = [node for node in self.nodes.values() if node.type == INPUT]
        wishes = Counter(node.implementation for node in inputs)
        namer = Namer()
        parameters = {}
        for node in inputs:
            wish = node.implementation
            if wishes[wish] > 1 or not is_argument_name(wish):
                wish = node.name
            if not is_argument_name(wish):
                wish = namer.name(f"{wish}_")
            parameters[node.name] = wish
        return parameters

    def keyword_only(self) -> frozenset[str]:
        """Return the keyword-only parameters of the root."""
        return frozenset(
            parameter
            for name, parameter in self.parameters().items()
            if self.nodes[name].data.get(KEYWORD_ONLY) is True
        )

    def in_execution_order(self) -> Iterator[Node]:
        """Yield the nodes in the order in which they run: as listed, but after the nodes they read.

        The output comes last, wherever it is listed: a node behind it, such as a guard, runs too.
        Nodes on a cycle have no such order and are left out; :func:`layergraph.ir.check` names
        them.
        """
        outputs = []
        for node in self._listed_after_sources():
            if node.type == OUTPUT:
                outputs.append(node)
            else:
                yield node
        yield from outputs

    def _listed_after_sources(self) -> Iterator[Node]:
        position = {name: index for index, name in enumerate(self.nodes)}
        last = len(position)
        if all(position.get(src, -1) < position.get(sink, last) for src, sink in self.edges):
            yield from self.nodes.values()
            return
        known = [pair for pair in self.edges if pair[0] in position and pair[1] in position]
        names = list(self.nodes)
        waiting = [0] * len(names)
        readers: list[list[int]] = [[] for _ in names]
        for src, sink in known:
            waiting[position[sink]] += 1
            readers[position[src]].append(position[sink])
        ready = [index for index, count in enumerate(waiting) if count == 0]
        while ready:
            index = heapq.heappop(ready)
            yield self.nodes[names[index]]
            for reader in readers[index]:
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    heapq.heappush(ready, reader)

    def arguments(self) -> dict[str, tuple[Value, ...]]:
        """Return the positional arguments of each node; its predecessors if it states none."""
        spelt = {name: node.args or () for name, node in self.nodes.items()}
        unsaid: dict[str, list[Value]] = {
            name: []
            for name, node in self.nodes.items()
            if node.args is None and reads_its_predecessor(node)
        }
        for src, sink in self.edges if unsaid else ():
            if sink in unsaid:
                unsaid[sink].append(Ref(src))
        for name, args in unsaid.items():
            spelt[name] = tuple(args)
        return spelt


@dataclass(slots=True, eq=False)
class Implementation(Graph):
    """A layer with its attributes, or a composition of layers with its graph.

    Two implementations are equal if all fields are equal. Children, nodes and edges must have the
    same order, because it decides the order of the state dict.

    A handler sets ``type`` and ``data``; the core fills in the rest.

    Attributes:
        type: the kind of layer (``"linear"``), ``module`` for a composition that only its graph
            describes, or ``body`` for a graph that a function node runs: see
            :class:`layergraph.ir.Body`.
        data: the arguments of the layer's constructor by name, and annotations. The name of an
            annotation has a dot, with the name of its owner first (``"acme.bits"``). Annotations do
            not change the computation.
        name: the path of the module in the model (``"layer1.0.conv1"``).
        evaluation: the graph in evaluation mode, if it differs; then ``nodes`` and ``edges`` are
            the graph in training mode.
        differs: the names of the nodes that differ between both graphs, as of the making of the IR.
            If an edit makes further nodes differ, the edit was made in one graph only, and the
            check refuses it. Add the names of nodes that are meant to differ.
        children: from the name of a child module to the name of its implementation, in the order of
            the model. None for a leaf, whose handler describes everything inside it. A handler of a
            container returns an empty dict; the core then captures and rebuilds the children.
        tensors: from the name of a tensor of this module to its spec.
        training: the module's mode. None if the module and its parent train. If you make an IR of
            implementations with None, each takes the mode of its parent.
        kept_modes: the modules whose mode ``train()`` and ``eval()`` of this module fix: from their
            path in this module to the mode, or to None if the methods leave the mode unchanged. The
            empty path is the module itself. For compositions only; the class of a layer has its own
            methods.
    """

    type: str
    data: dict[str, Value] = field(default_factory=dict)
    name: str = field(default="", kw_only=True)
    evaluation: Graph | None = field(default=None, kw_only=True)
    differs: set[str] | None = field(default=None, kw_only=True)
    children: dict[str, str] | None = field(default=None, kw_only=True)
    tensors: dict[str, TensorSpec] = field(default_factory=dict, kw_only=True)
    training: bool | None = field(default=None, kw_only=True)
    kept_modes: dict[str, bool | None] = field(default_factory=dict, kw_only=True)

    @property
    def attributes(self) -> dict[str, Value]:
        """Return the data without annotations: the arguments of the layer's constructor."""
        return {name: value for name, value in self.data.items() if "." not in name}

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """Return the graph, and the graph for evaluation mode if there is one."""
        return (self,) if self.evaluation is None else (self, self.evaluation)

    def changed(self, **attributes: Any) -> Implementation:
        """Return a copy with other values of some attributes; the rest is shared."""
        return Implementation(**dict(zip(_ATTRIBUTES, _of(self), strict=True)) | attributes)

    def _compared(self) -> tuple[object, ...]:
        return (
            *Graph._compared(self),
            self.name,
            self.type,
            self.data,
            self.evaluation,
            None if self.children is None else list(self.children.items()),
            list(self.tensors.items()),
            self.training,
            self.kept_modes,
        )

    def __repr__(self) -> str:
        attributes = ", ".join(f"{key}={value!r}" for key, value in self.data.items())
        graph = f", {len(self.nodes)} nodes" if self.nodes else ""
        return f"Implementation({self.name!r}: {self.type}({attributes}){graph})"


# dataclasses.replace takes three times as long, and an IR may have thousands of implementations.
_ATTRIBUTES = tuple(each.name for each in fields(Implementation))
_of = operator.attrgetter(*_ATTRIBUTES)


def returned(args: tuple[Value, ...]) -> Value:
    """Return the value that a graph returns, from the arguments of its output node.

    One argument is the returned value itself, several are a tuple, none is None.
    """
    if len(args) == 1:
        return args[0]
    return args or None


def reads_its_predecessor(node: Node) -> bool:
    """Return whether the edges state what a node reads."""
    return node.args is None and not node.kwargs and node.when is None
