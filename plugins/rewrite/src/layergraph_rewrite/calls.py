"""The handle of a node, with its layer or function, arguments, attributes and tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from layergraph.ir import BODY, FUNCTION, Value
from layergraph_rewrite.new_layers import defaults_of, has_tensors
from layergraph_rewrite.sources import Tensors
from layergraph_rewrite.terms import Applied, Existing

if TYPE_CHECKING:
    from layergraph_rewrite.working import WorkingGraph


class Site(NamedTuple):
    """The place of a node: the name of the composite whose graph it is in, and its own name."""

    graph: str
    node: str

    def __str__(self) -> str:
        return f"{self.graph}:{self.node}"


class Call:
    """A node of a graph under edit, as of the making of the handle.

    Conditions of patterns and replacements take such handles; :meth:`layergraph.Ir.select` returns
    them.

    Attributes:
        node: the node, with stated arguments.

    Example:
        >>> import torch, layergraph as lg
        >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()))
        >>> call = ir.select("linear")[0]
        >>> call.layer, call.type, call.attributes["out_features"]
        ('0', 'linear', 3)
    """

    __slots__ = ("_graph", "_layer", "_layer_data", "_layer_type", "_name", "_sources", "node")

    def __init__(self, graph: WorkingGraph, name: str) -> None:
        self._graph = graph
        self._name = name
        self.node = node = graph.nodes[name]
        # An edit replaces the node and these dicts, and changes none of them.
        layer = self._layer = graph.layer_of(node) if node.is_call else None
        self._layer_type = "" if layer is None else layer.type
        self._layer_data = {} if layer is None else layer.data
        self._sources = {} if layer is None else layer.sources

    @property
    def spot(self) -> tuple[WorkingGraph, str]:
        """The graph under edit and the name of the node in it."""
        return self._graph, self._name

    @property
    def has_tensors(self) -> bool:
        """True if the layer, or one inside it, has tensors in the state dict."""
        layer = self._layer
        return layer is not None and any(map(has_tensors, layer.inside()))

    @property
    def site(self) -> Site:
        """The place of the node."""
        return Site(self._graph.owner.name, self._name)

    @property
    def type(self) -> str:
        """The type of the called layer; for another node, the type of the node."""
        return self._layer_type or self.node.type

    @property
    def layer(self) -> str | None:
        """The name of the called layer; None for another node."""
        return self.node.implementation if self.node.is_call else None

    @property
    def function(self) -> str | None:
        """The name of the called function; None for another node."""
        return self.node.implementation if self.node.type == FUNCTION else None

    @property
    def args(self) -> tuple[Value, ...]:
        """The arguments by position."""
        return self.node.args or ()

    @property
    def kwargs(self) -> dict[str, Value]:
        """The arguments by name."""
        return dict(self.node.kwargs)

    @property
    def attributes(self) -> dict[str, Value]:
        """The attributes of the layer, without annotations; empty for another node."""
        return {name: value for name, value in self._layer_data.items() if "." not in name}

    @property
    def data(self) -> dict[str, Value]:
        """The annotations of the node, and the attributes and annotations of its layer."""
        return {**self._layer_data, **self.node.data}

    @property
    def tensors(self) -> Tensors:
        """The tensors of the layer by name, each read at its first access."""
        return Tensors(self._sources)

    @property
    def training(self) -> bool:
        """True if the layer is in training mode."""
        layer = self._layer
        while layer is not None:
            if layer.training is not None:
                return layer.training
            layer = next((parent for parent, _ in layer.parents), None)
        return True

    @property
    def users(self) -> list[Call]:
        """The nodes that read its value."""
        return [Call(self._graph, name) for name in self._graph.users[self._name]]

    @property
    def shape(self) -> tuple[Value, ...] | None:
        """The shape of its value from :func:`layergraph.annotate_shapes`; None without one."""
        for user in self._graph.users[self._name]:
            shape = self._graph.edge_data(self._name, user).get("layergraph.shape")
            if type(shape) is tuple:
                return shape
        return None

    @property
    def is_in_root(self) -> bool:
        """True if the node is in the graph of the model itself."""
        owner = self._graph.owner
        return not owner.parents and owner.type != BODY

    @property
    def is_shared(self) -> bool:
        """True if another node calls the same layer."""
        layer = self._layer
        return layer is not None and len({(g.owner, n) for g, n in layer.calls}) > 1

    def __call__(self, *args: Any, **kwargs: Any) -> Applied:
        """Return a call of the same layer or function, for a replacement or an edit.

        Example:
            >>> import torch, layergraph as lg
            >>> from layergraph_rewrite import layer
            >>> pattern = lambda x: layer("relu", name="relu")(layer("maxpool1d", name="pool")(x))
            >>> @lg.rule(pattern)
            ... def swap(match):
            ...     return match["pool"](match["relu"](match["x"]))
        """
        return Applied(Existing(self), args, kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.site == other.site

    def __hash__(self) -> int:
        return hash(self.site)

    def __repr__(self) -> str:
        return f"Call({str(self.site)!r}: {self.type})"

    def __getitem__(self, name: str) -> Any:
        """Return an attribute or annotation, or the default of an attribute that is left to it."""
        data = self.data
        return data[name] if name in data or self._layer is None else defaults_of(self._layer)[name]
