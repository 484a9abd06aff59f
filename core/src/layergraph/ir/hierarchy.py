"""Which implementation is whose child, where an IR leaves that to its names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from layergraph.ir.graph import Implementation

Children = dict[str, dict[str, str] | None]


def derive_children(implementations: Mapping[str, Implementation], root: str) -> Children:
    """The children of every implementation; those that state their own keep them.

    An implementation belongs to the one whose name is the longest dotted prefix of its own; failing
    that, to the first one that calls it (the root first of all); failing that, to the root. Who
    calls an implementation that is nowhere beneath it gets it as one more child.
    """
    family = _Family(implementations)
    unsaid = [name for name, listed in family.children.items() if listed is None]
    # Who says its children gets none by calling them, and a leaf calls nobody.
    graphs = [graph for name in unsaid for graph in implementations[name].graphs]
    is_told_by_calls = root in unsaid or any(graph.nodes for graph in graphs)
    callers = _callers(implementations, root) if is_told_by_calls else {}
    for name in implementations:
        if name == root:
            continue
        parent = _prefix(name, implementations)
        child = name if parent is None else name[len(parent) + 1 :]
        if parent is None:
            parent = callers.get(name, [root])[0]
        if implementations[parent].children is None:
            family.add(parent, child, name)
    for name, calling in callers.items():
        for caller in calling:
            if (
                implementations[caller].children is None
                and family.ancestry.path(caller, name) is None
            ):
                family.add(caller, name.rpartition(".")[2], name)
    for name in unsaid:
        if implementations[name].nodes and family.children[name] is None:
            family.children[name] = {}
    return family.children


class Ancestry:
    """Which implementation contains which, looked at from the inside."""

    def __init__(self) -> None:
        self._parents: dict[str, list[tuple[str, str]]] = {}

    @classmethod
    def of(cls, implementations: Mapping[str, Implementation]) -> Ancestry:
        """That of implementations that state their children."""
        ancestry = cls()
        for name, implementation in implementations.items():
            for child, target in (implementation.children or {}).items():
                ancestry.add(name, child, target)
        return ancestry

    def add(self, parent: str, child: str, name: str) -> None:
        """Note that an implementation is a child of another one, under a name."""
        self._parents.setdefault(name, []).append((parent, child))

    def path(self, top: str, name: str) -> str | None:
        """The way of child names from one implementation down to another; None if there is none.

        Of several, the shortest; empty from one to itself.
        """
        if top == name:
            return ""
        seen = {name}
        level = [(name, "")]
        while level:
            above = []
            for below, path in level:
                for parent, child in self._parents.get(below, ()):
                    full = f"{child}.{path}" if path else child
                    if parent == top:
                        return full
                    if parent not in seen:
                        seen.add(parent)
                        above.append((parent, full))
            level = above
        return None


class _Family:
    """Children by parent, on their way to being complete."""

    def __init__(self, implementations: Mapping[str, Implementation]) -> None:
        self.children: Children = {
            name: None if implementation.children is None else dict(implementation.children)
            for name, implementation in implementations.items()
        }
        self.ancestry = Ancestry.of(implementations)

    def add(self, parent: str, child: str, name: str) -> None:
        listed = self.children[parent]
        if listed is None:
            listed = self.children[parent] = {}
        free = child
        number = 0
        while free in listed:
            number += 1
            free = f"{child}_{number}"
        listed[free] = name
        self.ancestry.add(parent, free, name)


def children_to_state(
    implementations: Mapping[str, Implementation], root: str, always: Iterable[str] = ()
) -> dict[str, dict[str, str]]:
    """The children that have to be written down, because deriving them would give others."""
    stated = {name: implementations[name].children for name in always}
    while True:
        bare = {
            name: Implementation(
                type=implementation.type,
                nodes=implementation.nodes,
                evaluation=implementation.evaluation,
                children=stated.get(name),
            )
            for name, implementation in implementations.items()
        }
        derived = derive_children(bare, root)
        wrong = {
            name: implementation.children
            for name, implementation in implementations.items()
            if name not in stated and not _same(implementation.children, derived[name])
        }
        if not wrong:
            return {name: listed for name, listed in stated.items() if listed is not None}
        stated |= wrong


def _same(one: Mapping[str, str] | None, other: Mapping[str, str] | None) -> bool:
    if one is None or other is None:
        # A childless leaf and a container without anything inside are two things; where None is
        # meant but children would be derived, there is nothing that could be written to say so.
        return one is other or one is None
    return list(one.items()) == list(other.items())


def _callers(implementations: Mapping[str, Implementation], root: str) -> dict[str, list[str]]:
    callers: dict[str, list[str]] = {}
    order = [root, *(name for name in implementations if name != root)]
    for caller in order:
        if caller not in implementations:
            continue
        for graph in implementations[caller].graphs:
            for node in graph.nodes.values():
                if node.is_call and node.implementation in implementations:
                    calling = callers.setdefault(node.implementation, [])
                    if caller not in calling[-1:]:
                        calling.append(caller)
    return callers


def _prefix(name: str, implementations: Mapping[str, Implementation]) -> str | None:
    end = name.rfind(".")
    while end > 0:
        if name[:end] in implementations:
            return name[:end]
        end = name.rfind(".", 0, end)
    return None
