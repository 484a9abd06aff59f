"""Matching the layers of two IRs.

Two layers match if they have the same name in matching parents. If the names are numbers, as in a
Sequential, a new layer renames all later ones, so we align the layers by their content.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from layergraph.ir import STATE, Graph, Implementation, Ir, Node, TensorSpec
from layergraph_tools.difference.alignment import align_by
from layergraph_tools.difference.values import frozen


@dataclass(frozen=True, slots=True)
class Matching:
    """The matching layers of an old and a new IR.

    Attributes:
        names: for each matching layer's name in the old IR, its name in the new one.
        origins: for each matching layer's name in the new IR, its name in the old one.
        renumbered: for each implementation of the old IR, the old and new names of its children
            whose names changed.
        moved: the new names of layers whose name changed only because their path did.
    """

    names: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    renumbered: dict[str, dict[str, str]] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)

    def add(self, name: str, there: str) -> bool:
        """Match two layers, and return True; return False if one of them has a match already."""
        if name in self.names or there in self.origins:
            return False
        self.names[name] = there
        self.origins[there] = name
        return True

    def name(self, name: str) -> str:
        """Return the new name of a layer of the old IR."""
        if name in self.names:
            return self.names[name]
        return f"removed {name}" if name in self.origins else name

    def key(self, key: str) -> str:
        """Return the new state-dict key of a tensor or flag of the old IR."""
        end = key.rfind(".")
        while self.moved and end > 0:
            if key[:end] in self.names:
                return self.names[key[:end]] + key[end:]
            end = key.rfind(".", 0, end)
        return key

    def graph(self, graph: Graph) -> Graph:
        """Return a graph of the old IR with the new names of layers."""
        nodes = {key: self._node(node) for key, node in graph.nodes.items()}
        return Graph(nodes=nodes, edges=graph.edges)

    def tensor(self, spec: TensorSpec) -> TensorSpec:
        """Return a tensor spec of the old IR with the new names of layers."""
        return spec if spec.tied is None else replace(spec, tied=self.key(spec.tied))

    def _node(self, node: Node) -> Node:
        named = node.implementation
        if node.is_call:
            named = self.name(named)
        elif node.type == STATE:
            named = self.key(named)
        return node if named == node.implementation else replace(node, implementation=named)


def match(one: Ir, other: Ir) -> Matching:
    """Match the layers of two IRs, from the outside in."""
    matching = Matching()
    kinds = _Kinds()
    if one.root == other.root or (one.root not in other and other.root not in one):
        matching.add(one.root, other.root)
    waiting = list(matching.names.items())
    while waiting:
        name, there = waiting.pop()
        for child, twin in _children(one, name, other, there, kinds):
            if child != twin:
                matching.renumbered.setdefault(name, {})[child] = twin
            inner = (one[name].children or {})[child], (other[there].children or {})[twin]
            known = inner[0] in one and inner[1] in other
            if known and matching.add(*inner):
                waiting.append(inner)
                own = _path(one, name, child), _path(other, there, twin)
                if inner == own and own[0] != own[1]:
                    matching.moved.add(own[1])
    # Match the remaining layers by name: those that moved to another parent, or have none.
    for name in one:
        if name in other:
            matching.add(name, name)
    return matching


def _path(ir: Ir, name: str, child: str) -> str:
    return child if name == ir.root else f"{name}.{child}"


def _children(
    one: Ir, name: str, other: Ir, there: str, kinds: _Kinds
) -> Iterator[tuple[str, str]]:
    """Yield the old and new names of the matching children of two modules."""
    before, after = one[name].children or {}, other[there].children or {}
    if not all(child.isdecimal() for child in (*before, *after)):
        yield from ((child, child) for child in before if child in after)
        return
    here, twins = list(before), list(after)
    pairs = align_by(
        [(one, before[child]) for child in here],
        [(other, after[child]) for child in twins],
        [kinds.whole, kinds.own, kinds.type],
        lambda _before, _after: True,
    )
    yield from ((here[index], twins[position]) for index, position in pairs)


class _Kinds:
    """Hashable descriptions of layers, by which equal layers are found."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._wholes: dict[tuple[int, str], int] = {}

    def type(self, layer: tuple[Ir, str]) -> Hashable:
        """Return the type of a layer."""
        return self._said(layer).type

    def own(self, layer: tuple[Ir, str]) -> Hashable:
        """Return the type and the attributes of a layer."""
        said = self._said(layer)
        return said.type, frozen(said.data)

    def whole(self, layer: tuple[Ir, str]) -> Hashable:
        """Return a number that layers with equal types, attributes and submodules share."""
        ir, top = layer
        stack = [top]
        while stack:
            name = stack[-1]
            key = id(ir), name
            inside: Mapping[str, str] = self._said((ir, name)).children or {}
            # A damaged IR may contain a cycle, so visit no layer twice.
            new = [each for each in inside.values() if (id(ir), each) not in self._wholes]
            if key not in self._wholes and new:
                self._wholes[key] = -1
                stack += new
                continue
            stack.pop()
            if self._wholes.get(key, -1) < 0:
                parts = tuple(
                    (child, self._wholes.get((id(ir), each), -1)) for child, each in inside.items()
                )
                said = self.own((ir, name)), parts
                self._wholes[key] = self._numbers.setdefault(said, len(self._numbers))
        return self._wholes[id(ir), top]

    @staticmethod
    def _said(layer: tuple[Ir, str]) -> Implementation:
        ir, name = layer
        return ir[name] if name in ir else Implementation("")
