"""The bodies of an IR: graphs without a module of their own, which function nodes run."""

from __future__ import annotations

from collections.abc import Mapping

from layergraph.ir.graph import BODY, Graph, Implementation


def named_in(*graphs: Graph) -> list[str]:
    """Return the names of the bodies that the nodes of graphs run, in order, each once."""
    found: dict[str, None] = {}
    for graph in graphs:
        for node in graph.nodes.values():
            found |= dict.fromkeys(node.bodies())
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


def owned(implementations: Mapping[str, Implementation]) -> dict[str, list[str]]:
    """Return, for each implementation that runs bodies and is none, their names."""
    if all(each.type != BODY for each in implementations.values()):
        return {}
    found = {
        name: bodies_of(implementations, name)
        for name, each in implementations.items()
        if each.type != BODY
    }
    return {name: inside for name, inside in found.items() if inside}


def owners(implementations: Mapping[str, Implementation]) -> dict[str, str]:
    """Return the owner of each body: the implementation whose module its graph runs in.

    A body inside of another one has the owner of that one. If several implementations run a body,
    which no valid IR has, the first one counts.
    """
    found: dict[str, str] = {}
    for owner, inside in owned(implementations).items():
        for body in inside:
            found.setdefault(body, owner)
    return found
