"""Compiles graphs: an implementation with a graph becomes a module that runs it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from layergraph.errors import BuildError, Place
from layergraph.functions import Targets
from layergraph.ir import STATE, Graph, Implementation, Ir, Node
from layergraph.ir.names import is_attribute_path
from layergraph.ir.submodules import Ancestry
from layergraph.ir2torch.build_context import refusals
from layergraph.ir2torch.composite import Composite, find, taken_names
from layergraph.ir2torch.graph import fx_graph
from layergraph.ir2torch.submodules import owner_of


class CompositeBuilder:
    """Builds the modules that run graphs; equal graphs are compiled once.

    Args:
        ir: the IR.
        functions: the functions that nodes may name.
    """

    def __init__(self, ir: Ir, functions: Targets) -> None:
        self._ir = ir
        self._functions = functions
        self._ancestry = Ancestry.of(ir)
        self._compiled: dict[tuple[object, ...], Composite] = {}

    def build(self, implementation: Implementation, members: nn.Module) -> nn.Module:
        """Return a module that runs the graphs of an implementation on the given members.

        Raises:
            BuildError: a node names something that does not exist.
        """
        where = Place("implementation", implementation.name)
        graphs = implementation.graphs
        aliases: dict[str, str] = {}
        targets = [
            {
                name: self._target(node, implementation, members, aliases)
                for name, node in graph.nodes.items()
                if node.type == STATE or node.is_call
            }
            for graph in graphs
        ]
        # Most models repeat a few blocks many times.
        key = (*map(_said, graphs, targets), *aliases.items())
        compiled = self._compiled.get(key)
        if compiled is None:
            with refusals(where):
                made = [
                    fx_graph(graph, where, self._functions, located)
                    for graph, located in zip(graphs, targets, strict=True)
                ]
                by_alias = {alias: path for path, alias in aliases.items()}
                compiled = self._compiled[key] = Composite(members, by_alias, *made)
        # Return a copy: callers may edit it, and the cached template must stay intact.
        return compiled.alike(members)

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
        if path is None or rest == "" or not _is_of_kind(find(members, full), node):
            where = Place("implementation", implementation.name).at("node", node.name)
            raise BuildError(
                f"{where}: there is no {node.implementation!r} in it; correct the name"
            )
        if is_attribute_path(full) and not taken_names() & set(full.split(".")):
            return full
        if full not in aliases:
            alias = f"_unspellable_{len(aliases)}"
            while find(members, alias) is not None:
                alias += "_"
            aliases[full] = alias
        return aliases[full]


def _said(graph: Graph, targets: Mapping[str, str]) -> tuple[object, ...]:
    """Return a key on which the code of a graph depends: equal keys, equal code."""
    return (
        *graph.edges,
        *[
            (
                name,
                node.type,
                targets.get(name, node.implementation),
                # Their text tells 1 from True, and 0.0 from -0.0, which are equal.
                repr(node.args) if node.args else node.args,
                repr(node.kwargs) if node.kwargs else None,
                node.when,
            )
            for name, node in graph.nodes.items()
        ],
    )


def _is_of_kind(found: object, node: Node) -> bool:
    """Return whether an attribute is of the kind that a node reads: a module, tensor or mode."""
    return isinstance(found, torch.Tensor | bool if node.type == STATE else nn.Module)
