"""Edits of an IR: each keeps the IR valid or raises, and updates the state dict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from layergraph.ir import Ir
from layergraph_rewrite.calls import Call
from layergraph_rewrite.edit_borders import BorderEdits
from layergraph_rewrite.edit_layers import LayerEdits
from layergraph_rewrite.edit_matches import MatchEdits
from layergraph_rewrite.edit_nodes import NodeEdits
from layergraph_rewrite.finished_ir import finished_ir
from layergraph_rewrite.report import Report
from layergraph_rewrite.select import Selection, select
from layergraph_rewrite.sources import Tensors
from layergraph_rewrite.working import Layers, WorkingGraph, WorkingLayer
from layergraph_rewrite.workspace import Workspace

if TYPE_CHECKING:
    import torch


class Edit(LayerEdits, NodeEdits, BorderEdits, MatchEdits):
    """An edit of an IR. It does not change the IR and its state dict; ``ir`` and ``state`` are new.

    Layers are named by their paths (``"layer1.0.conv1"``). Name a node by the layer that it calls,
    if only one node calls the layer; or by composite and node (``"layer1.0:add"``; ``":add"`` in
    the root); or by the :class:`Call` that :meth:`select` returns. If a composite has a graph for
    each mode and both have the node, an edit changes both.

    Args:
        ir: the IR.
        state: its state dict. None: ``edit.state`` is None too.

    Attributes:
        report: the record of the changes that rules and passes made.

    Raises:
        InvalidIrError: the IR breaks a rule.
        StateError: the state dict is not of this IR.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph_rewrite import layer
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Dropout())
        >>> edit = lg.edit(lg.to_ir(model), model.state_dict())
        >>> edit.replace("1", layer("gelu"))
        Call('root:_1': gelu)
        >>> edit.remove("2")
        >>> lg.to_torch(edit.ir, edit.state)
        Sequential(
          (0): Linear(in_features=2, out_features=3, bias=True)
          (1): GELU(approximate='none')
        )
    """

    def __init__(self, ir: Ir, state: Mapping[str, torch.Tensor] | None = None) -> None:
        self._space = Workspace(ir, state)
        self.report = Report()

    @property
    def ir(self) -> Ir:
        """A checked copy of the IR in its current form.

        Raises:
            InvalidIrError: the edits broke a rule.
        """
        return finished_ir(self._space)

    @property
    def state(self) -> Tensors | None:
        """The current state dict. It reads each tensor at its first access."""
        return self._space.state()

    def calls(self, layer: str) -> list[Call]:
        """Return the nodes that call a layer.

        Raises:
            EditError: there is no such layer.
        """
        found = {(graph.owner.name, name): graph for graph, name in self._layer(layer).calls}
        return [Call(graph, name) for (_, name), graph in found.items()]

    def __iter__(self) -> Iterator[Call]:
        """Yield all nodes in execution order; the nodes of a composite follow each call of it."""
        yield from self._walk(self._space.root, {})

    def _walk(self, layer: WorkingLayer, seen: dict[int, None]) -> Iterator[Call]:
        seen[id(layer)] = None
        names: dict[str, None] = {}
        for graph in layer.graphs:
            for node in list(graph):
                if node.name in names or node.name not in graph:
                    continue
                names[node.name] = None
                yield Call(graph, node.name)
                # The caller may have edited the graph.
                now = graph.nodes.get(node.name)
                if now is None:
                    continue
                run = [self.layers[name] for name in now.bodies()]
                for inner in [graph.layer_of(now)] if now.is_call else run:
                    if id(inner) not in seen:
                        yield from self._walk(inner, seen)

    def select(self, text: str = "", **options: Any) -> Selection:
        """Return the nodes that match: see :meth:`layergraph.Ir.select`."""
        return select(self, text, **options)

    @property
    def layers(self) -> Layers:
        """All layers under edit, by name."""
        return self._space.layers

    @property
    def has_state(self) -> bool:
        """True if the edit follows a state dict."""
        return self._space.has_state

    def home(self, key: str) -> tuple[WorkingLayer, str]:
        """Return the layer and the tensor name of a key of the original state dict."""
        return self._space.home(key)

    def names_inside(self, layer: str) -> set[str]:
        """Return the names of a layer, of all layers inside it, and of their loop bodies.

        Raises:
            EditError: there is no such layer.
        """
        return {each.name for each in self._space.inside(self._layer(layer))}

    def working_graphs(self) -> Iterator[WorkingGraph]:
        """Yield all graphs."""
        for layer in list(self._space.inside(self._space.root)):
            yield from layer.graphs

    def tensors(self, layer: str) -> Tensors:
        """Return the tensors of a layer by name, each read at its first access."""
        return Tensors(self._layer(layer).sources)


def edit(ir: Ir, state: Mapping[str, torch.Tensor] | None = None) -> Edit:
    """Begin an edit of an IR: see :class:`Edit`.

    Args:
        ir: the IR, which stays as it is.
        state: its state dict. None: ``edit.state`` is None too.

    Raises:
        InvalidIrError: the IR breaks a rule.
        StateError: the state dict is not of this IR.

    Example:
        >>> import torch, layergraph as lg
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout())
        >>> edit = lg.edit(lg.to_ir(model), model.state_dict())
        >>> edit.remove("1")
        >>> print(edit.ir)
        root: sequential()
            input_1 = input
            _0 = linear 0(input_1)
            return _0
        0: linear(in_features=2, out_features=3, bias=True)
    """
    return Edit(ir, state)
