"""Edges, and a dict of them that finds the neighbours of a node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from layergraph.ir.values import Ref, Value


@dataclass(slots=True)
class Edge:
    """The value of one node flows into another node.

    Attributes:
        src: the node whose value it is.
        sink: the node that reads it.
        data: annotations of the user; layergraph keeps them.
    """

    src: str
    sink: str
    data: dict[str, Value] = field(default_factory=dict)


class Neighbours(NamedTuple):
    """The nodes at the other ends of the edges of each node, in edge order.

    Attributes:
        sources: by name of a node, the nodes whose values it reads.
        sinks: by name of a node, the nodes that read its value.
    """

    sources: dict[str, dict[str, None]]
    sinks: dict[str, dict[str, None]]

    def add(self, pair: tuple[str, str]) -> None:
        """Add an edge."""
        src, sink = pair
        self.sources.setdefault(sink, {})[src] = None
        self.sinks.setdefault(src, {})[sink] = None

    def remove(self, pair: tuple[str, str]) -> None:
        """Remove an edge."""
        src, sink = pair
        del self.sources[sink][src]
        del self.sinks[src][sink]


class Edges(dict[tuple[str, str], Edge]):
    """The edges of a graph by ``(src, sink)``: a dict that finds the neighbours of a node at once.

    The first search for a neighbour makes an index, and later changes of the dict update the index.

    The dict updates the arguments of a node if only one update is possible: if you exchange an edge
    into the node for another one, or add an edge to a node without arguments.

    Example:
        >>> from layergraph.ir.edges import Edge, Edges
        >>> from layergraph.ir.graph import Graph
        >>> graph = Graph(edges={("a", "b"): Edge("a", "b")})
        >>> graph.edges["b", "c"] = Edge("b", "c")
        >>> graph.predecessors("c"), graph.successors("a")
        (('b',), ('b',))
    """

    __slots__ = ("_index", "_nodes")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._index: Neighbours | None = None
        self._nodes: dict[str, Any] | None = None

    def of(self, nodes: dict[str, Any]) -> Edges:
        """Bind the edges to nodes, and return them; return a copy if other nodes have them."""
        if self._nodes is nodes:
            return self
        edges = self if self._nodes is None else Edges(self)
        edges._nodes = nodes
        return edges

    def neighbours(self) -> Neighbours:
        """Return the index of the neighbours."""
        if self._index is None:
            self._index = _index_of(self)
        return self._index

    def __setitem__(self, pair: tuple[str, str], edge: Edge) -> None:
        if self._index is not None and pair not in self:
            self._index.add(pair)
        super().__setitem__(pair, edge)
        self._follow(pair)

    def __delitem__(self, pair: tuple[str, str]) -> None:
        super().__delitem__(pair)
        if self._index is not None:
            self._index.remove(pair)
        self._follow(pair)

    def _follow(self, pair: tuple[str, str]) -> None:
        """Update the arguments of a node after a change of its edges, if that is unambiguous."""
        sink = pair[1]
        node = None if self._nodes is None else self._nodes.get(sink)
        if node is None or node.args is None:
            return
        named = dict.fromkeys(node.sources())
        present = self.neighbours().sources.get(sink, {})
        missing = [src for src in named if src not in present]
        added = [src for src in present if src not in named]
        if len(added) == 1 and not named and not node.args:
            node.args = (Ref(added[0]),)
        elif len(added) == len(missing) == 1:
            node.read_instead(missing[0], added[0])

    # The other methods that change a dict do not call the two methods above.

    def clear(self) -> None:
        """Remove all edges."""
        self._index = None
        super().clear()

    def pop(self, *args: Any) -> Any:
        """Remove an edge and return it."""
        self._index = None
        return super().pop(*args)

    def popitem(self) -> tuple[tuple[str, str], Edge]:
        """Remove the last edge and return it."""
        self._index = None
        return super().popitem()

    def setdefault(self, *args: Any) -> Any:
        """Return an edge; add the given one if there is none."""
        self._index = None
        return super().setdefault(*args)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add edges."""
        self._index = None
        super().update(*args, **kwargs)

    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]
        self.update(other)
        return self

    def __reduce__(self) -> tuple[type[Edges], tuple[dict[tuple[str, str], Edge]]]:
        return Edges, (dict(self),)


def _index_of(edges: Iterable[tuple[str, str]]) -> Neighbours:
    index = Neighbours({}, {})
    for pair in edges:
        index.add(pair)
    return index


def neighbours(edges: dict[tuple[str, str], Edge]) -> Neighbours:
    """Return the neighbours of each node; a user may have set a plain dict of edges."""
    return edges.neighbours() if isinstance(edges, Edges) else _index_of(edges)
