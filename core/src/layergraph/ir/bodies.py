"""The bodies of an IR: graphs without a module of their own, which function nodes run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from layergraph.ir.graph import BODY, Graph, Implementation
from layergraph.ir.values import bodies


def named_in(*graphs: Graph) -> list[str]:
    """Return the names of the bodies that the nodes of graphs run, in order, each once."""
    found: dict[str, None] = {}
    for graph in graphs:
        for node in graph.nodes.values():
            found |= dict.fromkeys(bodies(*(node.args or ()), *node.kwargs.values()))
    return list(found)


def bodies_of(implementations: Mapping[str, Implementation], name: str) -> list[str]:
    """Return the names of the bodies that an implementation runs, with those inside of them.

    Args:
        implementations: by name; names that are missing here are left out.
        name: the name of an implementation.
    """
    found: dict[str, None] = {}
    stack = [name]
    while stack:
        inside = named_in(*implementations[stack.pop()].graphs)
        new = [each for each in inside if each in implementations and each not in found]
        found |= dict.fromkeys(new)
        stack += reversed(new)
    return list(found)


def owners(implementations: Mapping[str, Implementation]) -> dict[str, str]:
    """Return the owner of each body: the implementation whose module its graph runs in.

    A body inside of another one has the owner of that one. If several implementations run a body,
    which no valid IR has, the first one counts.
    """
    return dict(reversed([*_owned(implementations)]))


def _owned(implementations: Mapping[str, Implementation]) -> Iterator[tuple[str, str]]:
    if all(each.type != BODY for each in implementations.values()):
        return
    for name, implementation in implementations.items():
        if implementation.type != BODY:
            for body in bodies_of(implementations, name):
                yield body, name
