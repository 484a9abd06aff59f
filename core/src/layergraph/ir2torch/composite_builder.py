"""Compilation of graphs: an implementation with a graph becomes a module that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx, nn

from layergraph.errors import BuildError, Place
from layergraph.functions.names import Targets
from layergraph.ir import STATE, Body, Graph, Implementation, Ir, Namer, Node, Value, map_leaves
from layergraph.ir.bodies import owned
from layergraph.ir.graph import KEYWORD_ONLY
from layergraph.ir.names import is_attribute_path
from layergraph.ir.submodules import Ancestry
from layergraph.ir2torch.build_context import refusals
from layergraph.ir2torch.composite import Composite, taken_names
from layergraph.ir2torch.graph import fx_graph
from layergraph.ir2torch.paths import find
from layergraph.ir2torch.submodules import owner_of


class CompositeBuilder:
    """Builds the modules that run graphs; equal graphs are compiled once."""

    def __init__(self, ir: Ir, functions: Targets) -> None:
        self._ir = ir
        self._functions = functions
        self._ancestry = Ancestry.of(ir)
        self._bodies = owned(ir)
        self._compiled: dict[tuple[object, ...], Composite] = {}

    def build(self, implementation: Implementation, members: nn.Module) -> nn.Module:
        """Return a module that runs the graphs of an implementation on the given members.

        Raises:
            BuildError: a node names something that does not exist.
        """
        aliases: dict[str, str] = {}
        graphs, methods = self._graphs(implementation, members)
        written = [
            _Written(
                graph,
                name,
                self._targets(graph, implementation, members, aliases),
                named,
                graph.keyword_only() if name == self._ir.root else frozenset(),
            )
            for graph, name, named in graphs
        ]
        # Most models repeat a few blocks many times.
        key = (*[each.key() for each in written], *methods, *aliases.items())
        compiled = self._compiled.get(key)
        if compiled is None:
            made = [self._made(each) for each in written]
            count = len(made) - len(methods)
            by_alias = {alias: path for path, alias in aliases.items()}
            run = dict(zip(methods, made[count:], strict=True))
            compiled = self._compiled[key] = Composite(members, by_alias, *made[:count], bodies=run)
        # Return a copy: callers may edit it, and the cached template must stay intact.
        return compiled.alike(members)

    def _graphs(
        self, implementation: Implementation, members: nn.Module
    ) -> tuple[list[tuple[Graph, str, dict[str, str]]], list[str]]:
        """Return the graphs of an implementation and of its bodies, and the names of methods.

        Each graph comes with the name of its implementation, and the methods of the bodies that it
        runs. First are those of the implementation, for one mode or for both.
        """
        owned = [self._ir[name] for name in self._bodies.get(implementation.name, ())]
        modes = 2 if any(len(each.graphs) > 1 for each in (implementation, *owned)) else 1
        if not owned:
            return [(graph, implementation.name, {}) for graph in implementation.graphs], []
        namer = Namer(taken_names() | {*vars(members)} | {*_names(members)})
        named = [
            {each.name: namer.name(each.name.rpartition("/")[2]) for each in owned}
            for _ in range(modes)
        ]
        pairs = [
            (each.graphs[0 if mode == 0 else -1], each.name, named[mode])
            for each in (implementation, *owned)
            for mode in range(modes)
        ]
        return pairs, [named[mode][each.name] for each in owned for mode in range(modes)]

    def _targets(
        self,
        graph: Graph,
        implementation: Implementation,
        members: nn.Module,
        aliases: dict[str, str],
    ) -> dict[str, str]:
        return {
            name: self._target(node, implementation, members, aliases)
            for name, node in graph.nodes.items()
            if node.type == STATE or node.is_call
        }

    def _made(self, written: _Written) -> fx.Graph:
        where = Place("implementation", written.name)
        with refusals(where):
            graph, _ = fx_graph(
                written.graph, where, self._functions, written.targets, written.methods
            )
        for node in graph.nodes:
            if node.op == "placeholder" and node.target in written.by_name:
                node.meta[KEYWORD_ONLY] = True
        return graph

    def _target(
        self,
        node: Node,
        implementation: Implementation,
        members: nn.Module,
        aliases: dict[str, str],
    ) -> str:
        """Return the attribute path, or its alias, of the module or tensor that a node names."""
        owner, rest = node.implementation, None
        if node.type == STATE:
            owner, rest = owner_of(self._ir, node.implementation)
        path = self._ancestry.path(implementation.name, owner)
        full = ".".join(part for part in (path, rest) if part)
        found = find(members, full)
        if path is None or rest == "" or not _is_of_kind(found, node):
            where = Place("implementation", implementation.name).at("node", node.name)
            raise BuildError(
                f"{where}: there is no {node.implementation!r} in it; correct the name"
            )
        if node.sets_state and not self._may_set(owner, found):
            where = Place("implementation", implementation.name).at("node", node.name)
            raise BuildError(
                f"{where}: it sets {node.implementation!r}, no buffer of a module; set a buffer"
            )
        if is_attribute_path(full) and not taken_names() & set(full.split(".")):
            return full
        if full not in aliases:
            alias = f"_unspellable_{len(aliases)}"
            while find(members, alias) is not None:
                alias += "_"
            aliases[full] = alias
        return aliases[full]

    def _may_set(self, owner: str, found: object) -> bool:
        """Return whether a graph may set a tensor: a buffer of an implementation with children."""
        is_inside = self._ir[owner].children is not None
        return is_inside and not isinstance(found, nn.Parameter | bool)


@dataclass(frozen=True, slots=True)
class _Written:
    """A graph to compile.

    Attributes:
        graph: the graph.
        name: the name of its implementation.
        targets: for each call and state node, the attribute path of the module or tensor.
        methods: for each body that it runs, the name of the method.
        by_name: the keyword-only parameters. Only the root has some, because graphs pass arguments
            by position.
    """

    graph: Graph
    name: str
    targets: Mapping[str, str]
    methods: Mapping[str, str]
    by_name: frozenset[str]

    def key(self) -> tuple[object, ...]:
        """Return a key of the graph; equal keys mean equal code."""
        return (
            *self.graph.edges,
            self.by_name,
            *[
                (
                    name,
                    node.type,
                    self.targets.get(name, node.implementation),
                    # Compare by repr, because 1 == True and 0.0 == -0.0.
                    repr(self._named(node.args)) if node.args else node.args,
                    repr(self._named(node.kwargs)) if node.kwargs else None,
                    node.when,
                )
                for name, node in self.graph.nodes.items()
            ],
        )

    def _named(self, value: Value) -> Value:
        return map_leaves(self._by_method, value) if self.methods else value

    def _by_method(self, leaf: Value) -> Value:
        return Body(self.methods[leaf.implementation]) if type(leaf) is Body else leaf


def _names(members: nn.Module) -> list[str]:
    """Return the names of the children and tensors of a module."""
    return [*members._modules, *members._parameters, *members._buffers]


def _is_of_kind(found: object, node: Node) -> bool:
    """Return whether an attribute is of the kind that a node reads: a module, tensor or mode."""
    return isinstance(found, torch.Tensor | bool if node.type == STATE else nn.Module)
