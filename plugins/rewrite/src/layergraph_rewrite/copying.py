"""Deep copies of layers, from the same model or another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from layergraph.ir import MODULE, STATE, Graph, Implementation
from layergraph.ir.values import copied
from layergraph_rewrite.nesting import adopt
from layergraph_rewrite.sources import Source
from layergraph_rewrite.working import WorkingGraph, WorkingLayer, changed
from layergraph_rewrite.workspace import Workspace


def copy(space: Workspace, owner: WorkingLayer, layer: WorkingLayer) -> WorkingLayer:
    """Return a copy of a layer with copies of its tensors, as a new child."""
    copies = _Copies(space, space, {}, _cloned)
    wish = next((child for _, child in layer.parents), layer.type)
    copies.add(owner, wish, layer)
    copies.connect(layer)
    return copies.made[id(layer)]


def open_leaf(space: Workspace, leaf: WorkingLayer, other: Workspace) -> None:
    """Replace a leaf by the composite of another workspace, with the same calls and name."""
    root = other.root
    leaf.type = MODULE
    leaf.data = {name: each for name, each in leaf.data.items() if "." in name}
    leaf.children = {}
    leaf.tensors, leaf.sources = dict(root.tensors), dict(root.sources)
    copies = _Copies(space, other, {id(root): leaf}, _itself)
    for child, inner in root.in_order().items():
        copies.add(leaf, child, inner)
    copies.connect(root)
    leaf.is_edited = True
    for each in leaf.inside():
        each.training = leaf.training


def _cloned(source: Source) -> Source:
    return Source(lambda: source.read().clone())


def _itself(source: Source) -> Source:
    return source


class _Copies(NamedTuple):
    """A copy operation.

    Attributes:
        space: the workspace of the copies.
        origin: the workspace of the originals.
        made: the copies by the id of the original.
        source: makes the source of a copied tensor from the original's.
    """

    space: Workspace
    origin: Workspace
    made: dict[int, WorkingLayer]
    source: Callable[[Source], Source]

    def add(self, owner: WorkingLayer, wish: str, layer: WorkingLayer) -> None:
        """Add a copy of a layer, and of those inside, to a composite."""
        if id(layer) in self.made:
            owner.add(wish, self.made[id(layer)])
            return
        is_leaf = layer.children is None
        new = WorkingLayer(
            Implementation(layer.type, copied(layer.data), children=None if is_leaf else {})
        )
        new.training = layer.training
        new.is_edited = layer.is_edited
        new.tensors = dict(layer.tensors)
        new.sources = {name: self.source(each) for name, each in layer.sources.items()}
        self.made[id(layer)] = new
        adopt(self.space, owner, wish, new)
        for child, inner in layer.in_order().items():
            self.add(new, child, inner)
        new.kept_modes = {self.made[id(each)]: mode for each, mode in layer.kept_modes.items()}

    def connect(self, top: WorkingLayer) -> None:
        """Copy the ties and graphs of a layer and of those inside."""
        for old in list(top.inside()):
            self._copy_ties(old)
            self._copy_graphs(old)

    def _copy_ties(self, old: WorkingLayer) -> None:
        """Repeat the ties inside the original among the tensors of the copy."""
        new = self.made[id(old)]
        for name, spec in old.tensors.items():
            if spec.tied is not None:
                home, tensor = self.origin.home(spec.tied)
                anchor = self.made.get(id(home))
                tied = None if anchor is None else self.space.key(anchor, tensor)
                self.space.tied[id(new)] = new
                new.tensors[name] = replace(spec, tied=tied)
                if anchor is not None and tensor in anchor.sources and name in new.sources:
                    new.sources[name] = anchor.sources[tensor]

    def _copy_graphs(self, old: WorkingLayer) -> None:
        new = self.made[id(old)]
        for graph in old.graphs:
            fresh = WorkingGraph(new, Graph(), self.space.layers)
            for node in graph:
                implementation = node.implementation
                if node.is_call:
                    inner = graph.layer_of(node)
                    implementation = self.made.get(id(inner), inner).name
                elif node.type == STATE:
                    home, tensor = self.origin.home(implementation)
                    implementation = self.space.key(self.made.get(id(home), home), tensor)
                fresh.add(changed(node, implementation=implementation))
            fresh.copy_edge_data(graph)
            new.graphs.append(fresh)
        new.namer = new.namer_copy()
