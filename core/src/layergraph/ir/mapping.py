"""The implementations of a model, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from layergraph.errors import InvalidIrError, Place, Problem
from layergraph.ir.from_nodes import unbound_copy
from layergraph.ir.graph import Graph, Implementation, Node, bind_calls
from layergraph.ir.modes import modes, own_mode
from layergraph.ir.node_differences import differing
from layergraph.ir.submodules import derive_children

ROOT = "root"


class Implementations(Mapping[str, Implementation]):
    """The base class of :class:`layergraph.Ir`: the mapping, without conversions."""

    __slots__ = ("_implementations", "root")

    def __init__(self, implementations: Iterable[Implementation], root: str = ROOT) -> None:
        self.root = root
        self._implementations: dict[str, Implementation] = {}
        problems: list[Problem] = []
        for implementation in implementations:
            name, children = implementation.name, implementation.children
            if name in self._implementations:
                place = Place("implementation", name)
                message = "another implementation has the same name"
                problems.append(Problem(place, message, "give each its own"))
            self._implementations[name] = implementation
            if children is not None and not _are_names(children):
                place = Place("implementation", name)
                remedy = "map the name of each child to that of its implementation"
                problems.append(Problem(place, f"its children are {children!r}", remedy))
        if root not in self._implementations:
            message = f"there is no implementation named {root!r}, the root"
            remedy = "add it, or say which implementation is the root"
            problems.append(Problem(Place("the IR"), message, remedy))
        if problems:
            raise InvalidIrError(problems)
        for name, children in derive_children(self._implementations, root).items():
            implementation = self._implementations[name]
            if implementation.children != children:
                self._implementations[name] = implementation.changed(children=children)
        self._state_modes()
        self._note_differences()
        self._bind_calls()

    def _bind_calls(self) -> None:
        """Bind each call to its implementation, so that it has that implementation's type.

        An implementation whose calls are bound to another IR is copied first.
        """
        known = self._implementations
        while shared := [each for each in known.values() if not _is_bound(each, known)]:
            for each in shared:
                graphs = [Graph(nodes=_copies(graph), edges=graph.edges) for graph in each.graphs]
                known[each.name] = each.changed(
                    nodes=graphs[0].nodes, evaluation=None if len(graphs) == 1 else graphs[1]
                )

    def _state_modes(self) -> None:
        """State the mode of each implementation that evaluates, so that a move keeps it."""
        if not {None, False} <= {each.training for each in self._implementations.values()}:
            return
        for name, (training, around) in modes(self._implementations, self.root).items():
            implementation = self._implementations[name]
            own = own_mode(training=training, around=around)
            if implementation.training is None and own is not None:
                self._implementations[name] = implementation.changed(training=own)

    def _note_differences(self) -> None:
        """Record how the two graphs of an implementation differ, to detect an edit of one only."""
        for name, each in self._implementations.items():
            if each.evaluation is not None and each.differs is None:
                try:
                    differs = differing(each, each.evaluation)
                except (AttributeError, RecursionError, TypeError, ValueError):
                    continue  # check() reports what is wrong with the graph
                self._implementations[name] = each.changed(differs=differs)

    def __getitem__(self, name: str) -> Implementation:
        return self._implementations[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._implementations)

    def __contains__(self, name: object) -> bool:
        return name in self._implementations

    def __len__(self) -> int:
        return len(self._implementations)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Implementations):
            return NotImplemented
        return self.root == other.root and list(self.values()) == list(other.values())

    __hash__ = None  # type: ignore[assignment]  # implementations can be edited


def _is_bound(implementation: Implementation, known: Mapping[str, Implementation]) -> bool:
    """Bind the calls of an implementation; return False if another IR has bound them."""
    if not implementation.nodes:
        return True
    try:
        return all(bind_calls(graph, known) for graph in implementation.graphs)
    except (AttributeError, TypeError):
        return True  # check() reports what is wrong with the graph


def _copies(graph: Graph) -> dict[str, Node]:
    return {name: unbound_copy(node) for name, node in graph.nodes.items()}


def _are_names(children: object) -> bool:
    return isinstance(children, dict) and all(
        type(child) is str and type(target) is str for child, target in children.items()
    )
