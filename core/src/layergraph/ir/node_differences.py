"""The nodes that differ between the two graphs of an implementation."""

from __future__ import annotations

from collections.abc import Collection

from layergraph.ir.graph import Graph, Node
from layergraph.ir.values import Ref, Symbol, Value, map_leaves, refs


def differing(one: Graph, other: Graph, known: Collection[str] = ()) -> set[str]:
    """Return the names of the nodes that differ between two graphs, or are in one of them only.

    Args:
        one: a graph.
        other: another.
        known: nodes that are known to differ. If a node reads one of these in one graph and
            another node in the other graph, that alone is no difference.
    """
    ones, others = one.arguments(), other.arguments()
    return {
        name
        for name in one.nodes.keys() | other.nodes.keys()
        if name not in known
        and (
            name not in one.nodes
            or name not in other.nodes
            or _is_other(one.nodes[name], ones[name], other.nodes[name], others[name], known)
        )
    }


def _is_other(
    one: Node,
    args: tuple[Value, ...],
    other: Node,
    other_args: tuple[Value, ...],
    known: Collection[str],
) -> bool:
    if _are_plainly_same(one, args, other, other_args):
        return False
    # As text, 1 is not True and nan is nan.
    texts = [
        repr((node.type, node.implementation, given, node.kwargs, node.when))
        for node, given in ((one, args), (other, other_args))
    ]
    if texts[0] == texts[1]:
        return False
    reads = [
        refs(*given, *node.kwargs.values(), *(node.when or ()))
        for node, given in ((one, args), (other, other_args))
    ]
    bare = [
        repr((node.type, node.implementation, map_leaves(_unread, (given, node.kwargs, node.when))))
        for node, given in ((one, args), (other, other_args))
    ]
    # One may read several nodes where the other reads none.
    if bare[0] != bare[1] or len(reads[0]) != len(reads[1]):
        return True
    return any(a != b and a not in known and b not in known for a, b in zip(*reads, strict=True))


def _are_plainly_same(
    one: Node, args: tuple[Value, ...], other: Node, other_args: tuple[Value, ...]
) -> bool:
    """Return whether nodes are the same, by a quick check that holds for nearly all."""
    given, other_given = (*args, *one.kwargs.values()), (*other_args, *other.kwargs.values())
    return (
        _PLAIN.issuperset(map(type, given))
        and list(map(type, given)) == list(map(type, other_given))
        and given == other_given
        and list(one.kwargs) == list(other.kwargs)
        and (one.type, one.implementation, one.when)
        == (other.type, other.implementation, other.when)
    )


# For values of these types, equal means the same.
_PLAIN = frozenset({type(None), bool, int, str, Symbol, Ref})


def _unread(leaf: Value) -> Value:
    return None if type(leaf) is Ref else leaf
