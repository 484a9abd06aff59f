"""Which layers of one IR are which of another.

A layer is found by its place: by the name it has in the module around it. Where names are numbers,
as in a sequence, one layer more gives others to all that follow: there layers are aligned by what
they are.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from layergraph.ir import STATE, Graph, Implementation, Ir, Node, TensorSpec
from layergraph_tools.difference.alignment import align_by
from layergraph_tools.difference.values import frozen


@dataclass(frozen=True, slots=True)
class Matching:
    """The layers of two IRs, matched.

    Attributes:
        names: of the layers of the one IR that the other has too, to their names there.
        origins: the other way round.
        renumbered: by implementation of the one IR, the children that have other names in the
            other, to those names.
        moved: the names, in the other IR, of layers whose names differ as those of their places do.
    """

    names: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    renumbered: dict[str, dict[str, str]] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)

    def add(self, name: str, there: str) -> bool:
        """Match two layers, unless one of them is matched already; whether they are now."""
        if name in self.names or there in self.origins:
            return False
        self.names[name] = there
        self.origins[there] = name
        return True

    def name(self, name: str) -> str:
        """The name that a layer of the one IR has in the other."""
        if name in self.names:
            return self.names[name]
        return f"removed {name}" if name in self.origins else name

    def key(self, key: str) -> str:
        """The key, in a state dict of the other, of a tensor or flag of the one."""
        end = key.rfind(".")
        while self.moved and end > 0:
            if key[:end] in self.names:
                return self.names[key[:end]] + key[end:]
            end = key.rfind(".", 0, end)
        return key

    def graph(self, graph: Graph) -> Graph:
        """A graph of the one IR, in the names of the other's layers."""
        nodes = {key: self._node(node) for key, node in graph.nodes.items()}
        return Graph(nodes=nodes, edges=graph.edges)

    def tensor(self, spec: TensorSpec) -> TensorSpec:
        """What the one IR says of a tensor, in the names of the other's layers."""
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
    # Whatever is elsewhere now, or in no module at all.
    for name in one:
        if name in other:
            matching.add(name, name)
    return matching


def _path(ir: Ir, name: str, child: str) -> str:
    return child if name == ir.root else f"{name}.{child}"


def _children(
    one: Ir, name: str, other: Ir, there: str, kinds: _Kinds
) -> Iterator[tuple[str, str]]:
    """The names of the children of two modules that are taken for the same."""
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
    """What layers are, so that equal ones can be found."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._wholes: dict[tuple[int, str], int] = {}

    def type(self, layer: tuple[Ir, str]) -> Hashable:
        """The type of a layer."""
        return self._said(layer).type

    def own(self, layer: tuple[Ir, str]) -> Hashable:
        """The type and the attributes of a layer."""
        said = self._said(layer)
        return said.type, frozen(said.data)

    def whole(self, layer: tuple[Ir, str]) -> Hashable:
        """The type and the attributes of a layer, and of all that is inside it."""
        ir, top = layer
        stack = [top]
        while stack:
            name = stack[-1]
            key = id(ir), name
            inside: Mapping[str, str] = self._said((ir, name)).children or {}
            # What contains itself is not looked into twice.
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
