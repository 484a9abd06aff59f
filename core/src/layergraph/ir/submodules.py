"""The hierarchy of implementations: deriving children from names and calls, and walking it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from layergraph.errors import InvalidIrError, Place, Problem
from layergraph.ir.bodies import owners
from layergraph.ir.graph import BODY, Implementation

if TYPE_CHECKING:
    from layergraph.ir.mapping import Implementations

Children = dict[str, dict[str, str] | None]


def derive_children(implementations: Mapping[str, Implementation], root: str) -> Children:
    """Return the children of each implementation; stated children stay.

    The parent of an implementation is the one whose name is the longest dotted prefix of its name;
    if there is none, the first one that calls it, the root before all others; if there is none, the
    root. An implementation that calls one that is not below it gets it as another child.
    """
    family = _Family(implementations)
    derived = [name for name, listed in family.children.items() if listed is None]
    # Skip the search for callers if no caller could get a child: those with stated children get
    # none by calls, and leaves make no calls.
    graphs = [graph for name in derived for graph in implementations[name].graphs]
    calls_matter = root in derived or any(graph.nodes for graph in graphs)
    callers = _callers(implementations, root) if calls_matter else {}
    for name in implementations:
        if name == root or implementations[name].type == BODY:
            continue
        parent = _prefix(name, implementations)
        child = name if parent is None else name[len(parent) + 1 :]
        if parent is None:
            parent = callers.get(name, [root])[0]
        if implementations[parent].children is None:
            family.add(parent, child, name)
    for name, calling in callers.items():
        family.adopt(
            name, [caller for caller in calling if implementations[caller].children is None]
        )
    for name in derived:
        each = implementations[name]
        if each.nodes and each.type != BODY and family.children[name] is None:
            family.children[name] = {}
    return family.children


class Ancestry:
    """The hierarchy from children to parents: parents, ancestors and paths of implementations.

    If many implementations share children that share children, each search takes long. So all
    searches together have a limit of steps, in proportion to the size of the hierarchy. Real models
    stay far below it.
    """

    def __init__(self) -> None:
        self._parents: dict[str, list[tuple[str, str]]] = {}
        self._direct: dict[tuple[str, str], str] = {}
        self._above: dict[str, set[str]] = {}
        self._paths: dict[tuple[str, str], str | None] = {}
        self._steps = _STEPS

    @classmethod
    def of(cls, implementations: Mapping[str, Implementation]) -> Ancestry:
        """Return the ancestry of implementations with stated children."""
        ancestry = cls()
        for name, implementation in implementations.items():
            for child, target in (implementation.children or {}).items():
                ancestry.add(name, child, target)
        return ancestry

    def add(self, parent: str, child: str, name: str) -> None:
        """Add an implementation as a child of another one, under a name."""
        self._parents.setdefault(name, []).append((parent, child))
        self._direct.setdefault((parent, name), child)
        self._steps += _STEPS_EACH
        if self._above or self._paths:
            self._above, self._paths = {}, {}

    def is_parent(self, parent: str, name: str) -> bool:
        """Return whether an implementation is a child of another one."""
        return (parent, name) in self._direct

    def contains(self, top: str, name: str) -> bool:
        """Return whether an implementation is anywhere below another one.

        Raises:
            InvalidIrError: the search exceeds the limit of steps.
        """
        if self.is_parent(top, name):
            return True
        above = self._above.get(name)
        if above is None:
            above = self._above[name] = set()
            self.ancestors(name, above)
        return top in above

    def ancestors(self, name: str, known: set[str]) -> None:
        """Add all ancestors of an implementation to a set. It skips those above known ones.

        Raises:
            InvalidIrError: the search exceeds the limit of steps.
        """
        stack = [name]
        while stack:
            parents = self._parents.get(stack.pop(), ())
            self._spend(len(parents))
            for parent, _ in parents:
                if parent not in known:
                    known.add(parent)
                    stack.append(parent)

    def path(self, top: str, name: str) -> str | None:
        """Return the shortest path of child names from one implementation down to another.

        It is empty from an implementation to itself. None if there is no path.

        Raises:
            InvalidIrError: the search exceeds the limit of steps.
        """
        if top == name:
            return ""
        child = self._direct.get((top, name))
        if child is not None:
            return child
        if (top, name) not in self._paths:
            self._paths[top, name] = self._search(top, name)
        return self._paths[top, name]

    def _search(self, top: str, name: str) -> str | None:
        # For each visited implementation, its child on the path, and the name of that child.
        way: dict[str, tuple[str, str]] = {name: ("", "")}
        level = [name]
        while level and top not in way:
            above = []
            for below in level:
                parents = self._parents.get(below, ())
                self._spend(len(parents))
                for parent, child in parents:
                    if parent not in way:
                        way[parent] = below, child
                        above.append(parent)
            level = above
        if top not in way:
            return None
        path = []
        while top != name:
            top, child = way[top]
            path.append(child)
        return ".".join(path)

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            message = "too many implementations share others that others share"
            remedy = "call an implementation where it is a child, or share less"
            raise InvalidIrError([Problem(Place("the IR"), message, remedy)])


# The limit of steps: _STEPS, and _STEPS_EACH more for each child.
_STEPS_EACH = 100
_STEPS = 1_000_000


class _Family:
    """The children of each implementation while they are being derived."""

    def __init__(self, implementations: Mapping[str, Implementation]) -> None:
        self.children: Children = {
            name: None if implementation.children is None else dict(implementation.children)
            for name, implementation in implementations.items()
        }
        self.ancestry = Ancestry.of(implementations)
        self._numbers: dict[tuple[str, str], int] = {}

    def add(self, parent: str, child: str, name: str) -> None:
        listed = self.children[parent]
        if listed is None:
            listed = self.children[parent] = {}
        free = child
        number = self._numbers.get((parent, child), 0)
        while free in listed:
            number += 1
            free = f"{child}_{number}"
        self._numbers[parent, child] = number
        listed[free] = name
        self.ancestry.add(parent, free, name)

    def adopt(self, name: str, callers: Iterable[str]) -> None:
        """Make an implementation a child of those that call it and do not contain it."""
        above: set[str] = set()
        for caller in callers:
            if caller == name or self.ancestry.is_parent(caller, name):
                continue
            if not above:
                self.ancestry.ancestors(name, above)
            if caller not in above:
                self.add(caller, name.rpartition(".")[2], name)
                above.add(caller)
                self.ancestry.ancestors(caller, above)


def children_to_state(
    implementations: Mapping[str, Implementation], root: str, always: Iterable[str] = ()
) -> dict[str, dict[str, str]]:
    """Return the children that the dict form has to state, because derivation would differ."""
    stated = {name: implementations[name].children for name in always}
    for turn in itertools.count(1):
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
        # To state some children may change those derived for others, so that this repeats. After
        # _TURNS, state all of them.
        stated |= (
            wrong if turn < _TURNS else {name: implementations[name].children for name in bare}
        )
    raise AssertionError  # unreachable: itertools.count does not end


_TURNS = 10


def _same(one: Mapping[str, str] | None, other: Mapping[str, str] | None) -> bool:
    if one is None or other is None:
        # None (a leaf) differs from {} (an empty container). The dict form cannot state None, so
        # that we accept whatever is derived for it.
        return one is other or one is None
    return list(one.items()) == list(other.items())


def _callers(implementations: Mapping[str, Implementation], root: str) -> dict[str, list[str]]:
    callers: dict[str, list[str]] = {}
    owned = owners(implementations)
    order = [root, *(name for name in implementations if name != root)]
    for caller in order:
        if caller not in implementations:
            continue
        graphs = implementations[caller].graphs
        caller = owned.get(caller, caller)  # noqa: PLW2901 a body calls for its owner
        for graph in graphs:
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


def post_order(ir: Implementations) -> Iterator[str]:
    """Yield each implementation once, children before parents."""
    return (name for name, _, begins in _walk(ir) if not begins)


def pre_order(ir: Implementations) -> Iterator[tuple[str, str | None]]:
    """Yield each implementation once with its first parent, in the order of a state dict."""
    return ((name, parent) for name, parent, begins in _walk(ir) if begins)


def _walk(ir: Implementations) -> Iterator[tuple[str, str | None, bool]]:
    """Yield each implementation with its first parent twice: before its children, and after."""
    seen = {ir.root}
    stack: list[tuple[str, str | None, Iterator[str]]] = [(ir.root, None, _children(ir, ir.root))]
    yield ir.root, None, True
    while stack:
        name, parent, children = stack[-1]
        for child in children:
            if child not in seen:
                seen.add(child)
                stack.append((child, name, _children(ir, child)))
                yield child, name, True
                break
        else:
            stack.pop()
            yield name, parent, False


def _children(ir: Implementations, name: str) -> Iterator[str]:
    return iter((ir[name].children or {}).values())
