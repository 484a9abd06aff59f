"""Unrolling of loops whose number of iterations follows from the sizes of a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import layergraph as lg
from layergraph.ir import Ir, Ref
from layergraph_rewrite.unrolling import LOOP


def unrolled(ir: Ir, metas: Mapping[tuple[str, ...], Any]) -> Ir:
    """Return an IR with unrolled loops; the same IR if there is none.

    A loop stays if its number of iterations is unknown, or differs between calls of its graph.

    Args:
        ir: the IR of one mode.
        metas: the description of each value by its path.
    """
    found = {place: tuple(counts) for place, counts in _turns(ir, metas).items()}
    loops = {place: counts[0] for place, counts in found.items() if _is_known(counts)}
    if not loops:
        return ir
    edit = lg.edit(ir)
    for (owner, node), count in loops.items():
        edit.unroll(f"{owner}:{node}", count)
    return edit.ir


def _turns(ir: Ir, metas: Mapping[tuple[str, ...], Any]) -> dict[tuple[str, str], set[Any]]:
    """Return the numbers of iterations of each loop, by its layer and node."""
    found: dict[tuple[str, str], set[Any]] = {}
    stack: list[tuple[str, tuple[str, ...]]] = [(ir.root, ())]
    while stack:
        owner, path = stack.pop()
        for node in ir[owner].nodes.values():
            if node.is_call and ir[node.implementation].nodes:
                stack.append((node.implementation, (*path, node.name)))
            if node.implementation == LOOP and node.when is None:
                count = (node.args or ())[1]
                if type(count) is Ref:
                    count = metas.get((*path, count.node))
                found.setdefault((owner, node.name), set()).add(count)
    return found


def _is_known(counts: tuple[Any, ...]) -> bool:
    return len(counts) == 1 and type(counts[0]) is int
