"""All layers of an IR under edit, read from an IR."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from layergraph.errors import InvalidIrError, Place, Problem, StateError
from layergraph.gc_pause import gc_paused
from layergraph.ir import (
    BODY,
    STATE,
    Ir,
    check,
)
from layergraph_rewrite.child_order import ordered
from layergraph_rewrite.parts import spread_parts
from layergraph_rewrite.sources import Source, Tensors
from layergraph_rewrite.working import Layers, WorkingGraph, WorkingLayer

if TYPE_CHECKING:
    import torch

_MOST_PATHS = 1_000_000


class Workspace:
    """The layers of an IR under edit, by name, and their tensors.

    Args:
        ir: the IR; not changed.
        state: its state dict; None to ignore tensors.

    Attributes:
        tied: the layers with a tensor that is or was tied, by id.

    Raises:
        InvalidIrError: the IR breaks a rule.
        ArgumentError: another object stands in the place of the IR.
        StateError: the state dict is none, or has a key that no layer of the IR has.
    """

    @gc_paused()
    def __init__(self, ir: Ir, state: Mapping[str, torch.Tensor] | None) -> None:
        check(ir)
        if state is not None and not isinstance(state, Mapping):
            raise StateError(
                f"a {type(state).__name__} stands where the state dict belongs; "
                "model.state_dict() gives one"
            )
        self.has_state = state is not None
        copy = ir.copy()
        self.layers = Layers((name, WorkingLayer(each)) for name, each in copy.items())
        self.root = self.layers[ir.root]
        for name, each in copy.items():
            layer = self.layers[name]
            for child, target in (each.children or {}).items():
                layer.add(child, self.layers[target])
        for position, layer in enumerate(self.layers.values()):
            layer.position = position
        self._positions = itertools.count(len(self.layers))
        for name, each in copy.items():
            if each.nodes:
                layer = self.layers[name]
                layer.graphs = [WorkingGraph(layer, graph, self.layers) for graph in each.graphs]
        self.tied = {
            id(layer): layer
            for layer in self.layers.values()
            if any(spec.tied is not None for spec in layer.tensors.values())
        }
        paths = dict(self.paths())
        self._note_modes(copy, paths)
        for key in _named_keys(copy):
            self.layers.homes[key] = _home(paths, key)
        spread_parts(self.tied.values(), self.layers.homes)
        if state is not None:
            _note_state(paths, state)

    def paths(self) -> Iterator[tuple[str, WorkingLayer]]:
        """Yield the path of each layer, in the order of a state dict. A shared layer has several.

        Raises:
            InvalidIrError: there are too many paths.
        """
        stack: list[tuple[str, WorkingLayer]] = [("", self.root)]
        count = 0
        while stack:
            path, layer = stack.pop()
            yield path, layer
            count += 1
            if count > _MOST_PATHS:
                message = "layers share so many others that they have too many paths"
                raise InvalidIrError([Problem(Place("the IR"), message, "share less")])
            prefix = f"{path}." if path else ""
            stack += [(prefix + child, layer.inner[child]) for child in reversed(ordered(layer))]

    def _note_modes(self, ir: Ir, paths: Mapping[str, WorkingLayer]) -> None:
        if not any(each.kept_modes for each in ir.values()):
            return
        first = {id(layer): path for path, layer in reversed([*paths.items()])}
        for name, each in ir.items():
            layer = self.layers[name]
            for path, mode in each.kept_modes.items():
                whole = ".".join(filter(None, (first.get(id(layer), ""), path)))
                if whole in paths:
                    layer.kept_modes[paths[whole]] = mode

    def key(self, layer: WorkingLayer, tensor: str) -> str:
        """Return a stable text for the key of a tensor, even if its layer moves."""
        text = f"{layer.name}\0{tensor}\0{id(layer)}"
        self.layers.homes[text] = layer, tensor
        return text

    def home(self, key: str) -> tuple[WorkingLayer, str]:
        """Return the layer and the tensor name of a key in a node."""
        return self.layers.homes[key]

    def next_position(self) -> int:
        """Return the place of a new implementation, after all others."""
        return next(self._positions)

    def named(self, path: str) -> WorkingLayer | None:
        """Return a layer by its name, or by another of its paths; the root by an empty one."""
        layer = self.layers.get(path)
        if layer is not None or not path:
            return layer or self.root
        stack: list[tuple[WorkingLayer, str]] = [(self.root, path)]
        while stack:
            layer, rest = stack.pop()
            for child, inner in (layer.children or {}).items():
                if rest == child:
                    return inner
                if rest.startswith(f"{child}."):
                    stack.append((inner, rest[len(child) + 1 :]))
        return None

    def read_homes(self, without: Collection[int]) -> list[WorkingLayer]:
        """Return the layers whose tensors nodes of other layers read.

        Args:
            without: the ids of layers whose nodes to ignore.
        """
        return [
            self.layers.homes[graph.nodes[name].implementation][0]
            for graph, name in self.layers.states
            if id(graph.owner) not in without
        ]

    def redirect(self, others: Mapping[WorkingLayer, WorkingLayer]) -> None:
        """Redirect reads of, and ties to, tensors of layers to other layers."""
        self.layers.homes = {
            key: (others.get(home, home), tensor)
            for key, (home, tensor) in self.layers.homes.items()
        }

    def tied_layers(self) -> Iterator[WorkingLayer]:
        """Yield the remaining layers with a tensor that is or was tied."""
        for layer in self.tied.values():
            if self.layers.get(layer.name) is layer:
                yield layer

    def keep_ties(self, dropped: Collection[int]) -> None:
        """Copy the sources of a dropped layer's tensors to tensors tied to them without a source.

        Args:
            dropped: the ids of the layers.
        """
        if not self.layers.homes:
            return
        for layer in self.tied_layers():
            if id(layer) in dropped:
                continue
            for name, spec in layer.tensors.items():
                if spec.tied is None or name in layer.sources:
                    continue
                home, tensor = self.layers.homes[spec.tied]
                if id(home) in dropped and tensor in home.sources:
                    layer.sources = {**layer.sources, name: home.sources[tensor]}

    def inside(self, top: WorkingLayer) -> Iterator[WorkingLayer]:
        """Yield a layer, all layers inside it, and their loop bodies, each once."""
        layers = list(top.inside())
        yield from layers
        yield from self.bodies_of(layers)

    def module_of(self, layer: WorkingLayer) -> WorkingLayer:
        """Return the layer whose module runs a graph: itself, or for a body, its owner."""
        while layer.type == BODY:
            graphs = (graph for each in self.layers.values() for graph in each.graphs)
            layer = next(graph.owner for graph in graphs if layer in self.bodies_in(graph))
        return layer

    def bodies_in(self, graph: WorkingGraph) -> list[WorkingLayer]:
        """Return the bodies that the nodes of a graph run."""
        return [self.layers[name] for node in graph for name in node.bodies()]

    def bodies_of(self, layers: Collection[WorkingLayer]) -> list[WorkingLayer]:
        """Return the bodies that the graphs of layers run, including nested bodies."""
        if all(layer.type != BODY for layer in self.layers.values()):
            return []
        found: dict[int, WorkingLayer] = {}
        stack = list(layers)
        while stack:
            for graph in stack.pop().graphs:
                for body in self.bodies_in(graph):
                    if id(body) not in found:
                        found[id(body)] = body
                        stack.append(body)
        return list(found.values())

    def state(self) -> Tensors | None:
        """Return the current state dict, which reads tensors lazily."""
        if not self.has_state:
            return None
        sources: dict[str, Source] = {}
        for path, layer in self.paths():
            prefix = f"{path}." if path else ""
            for name, source in layer.sources.items():
                sources[prefix + name] = source
        return Tensors(sources)


def _note_state(paths: Mapping[str, WorkingLayer], state: Mapping[str, torch.Tensor]) -> None:
    try:
        keys = list(state)
    except TypeError:
        raise StateError(f"{state!r:.60} is no state dict; give a mapping of tensors") from None
    for key in keys:
        layer, name = _home(paths, key)
        if layer.children is not None and name not in layer.tensors:
            raise StateError(
                f"the state dict does not fit the IR: {key!r} is not one of the model; give "
                "the state dict of the model that the IR describes"
            )
        layer.sources.setdefault(name, Source.at(state, key))


def _named_keys(ir: Ir) -> Iterator[str]:
    for each in ir.values():
        for graph in each.graphs:
            for node in graph.nodes.values():
                if node.type == STATE:
                    yield node.implementation
        for spec in each.tensors.values():
            if spec.tied is not None:
                yield spec.tied


def _home(paths: Mapping[str, WorkingLayer], key: str) -> tuple[WorkingLayer, str]:
    """Return the layer and the tensor name of a state-dict key."""
    path = key
    while path:
        path = path.rpartition(".")[0]
        layer = paths.get(path)
        if layer is not None:
            return layer, key[len(path) + 1 :] if path else key
    return paths[""], key
