"""Passes that make composites: of chains of layers, and of the parts of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layergraph.ir import INPUT, OUTPUT
from layergraph_passes.modes import is_only_read_by, source_of
from layergraph_rewrite import Call, EditError

if TYPE_CHECKING:
    from layergraph_rewrite import Edit


def fuse_chain(edit: Edit, *, types: str | Sequence[str], name: str = "fused") -> None:
    """Make one composite of each chain of layers of some types.

    The name of the composite becomes a prefix of the keys inside. Values inside the chain must have
    no other readers. The new model computes the same.

    Args:
        edit: the edit.
        types: the types, in order: ``["conv2d", "batchnorm2d", "relu"]``, or as one text with
            commas.
        name: the name of the composites. The second gets the name ``fused_1``, and so on.
    """
    wanted = [each.strip() for each in types.split(",")] if isinstance(types, str) else list(types)
    if len(wanted) < 2:
        raise EditError(f"a chain has at least two types; got {types!r}")
    done: set[Call] = set()
    for last in list(edit):
        chain = _chain(last, wanted)
        if not chain or done & set(chain):
            continue
        done |= set(chain)
        listed = ", ".join(repr(call.layer or call.site.node) for call in chain)
        shared = [call for call in chain if call.is_shared]
        if shared:
            edit.report.refuse(last, f"other nodes call {shared[0].layer!r} too")
            continue
        try:
            made = edit.outline(chain, name)
        except EditError as error:
            edit.report.refuse(last, str(error))
        else:
            edit.report.add(made, f"made of {listed}")


def _chain(last: Call, types: Sequence[str]) -> list[Call]:
    """Return the chain that ends in a node; empty if none does."""
    chain = [last]
    for index, kind in enumerate(reversed(types)):
        if (chain[-1].function or chain[-1].type) != kind:
            return []
        if index + 1 < len(types):
            source = source_of(chain[-1])
            if source is None or not is_only_read_by(source, chain[-1]):
                return []
            chain.append(source)
    return chain[::-1]


def split(edit: Edit, *, at: str, first: str = "first", second: str = "second") -> None:
    """Make two composites of the model: up to a node, and after it.

    Each can then go to its own device, or be extracted. The keys of the layers get the names of
    the composites in front. The new model computes the same.

    Args:
        edit: the edit.
        at: the last node of the first part: the path of a layer that the root calls, or ``":add"``.
        first: the name of the first composite.
        second: the name of the second one.
    """
    last = edit.call(at)
    if not last.is_in_root:
        raise EditError(f"{at!r} is inside of a composite; inline the composite, or cut around it")
    graph, name = last.spot
    if len(graph.owner.graphs) > 1:
        raise EditError("the graphs for training and evaluation differ; split a model of one mode")
    inner = [node.name for node in graph if node.type not in (INPUT, OUTPUT)]
    index = inner.index(name) + 1
    parts = {first: inner[:index], second: inner[index:]}
    if not parts[second]:
        raise EditError(f"nothing runs after {at!r}; cut before it")
    for part, names in parts.items():
        edit.report.add(edit.outline([Call(graph, each) for each in names], part), "made")
