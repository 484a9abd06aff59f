"""Comparing two IRs, layer by layer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from layergraph.ir import Implementation, Ir, Node, TensorSpec
from layergraph.ir.modes import changes_of_mode
from layergraph.ir.text import layer_text
from layergraph_tools.difference.graphs import (
    Found,
    compare_graphs,
    compare_mappings,
    compare_order,
)
from layergraph_tools.difference.layers import match
from layergraph_tools.difference.report import ABSENT, Change, Difference
from layergraph_tools.difference.values import same

Form = Mapping[str, Mapping[str, Any]]


def diff(a: Ir | Form, b: Ir | Form) -> Difference:
    """Compare the structure of two models.

    ``diff`` matches layers by their names in the same parent; if the names are numbers, by their
    contents and types, in order. It matches nodes by the calls that they make, in execution order,
    and ignores their names. It compares no weights, because an IR has none. The time is in
    proportion to the sizes of the IRs.

    Args:
        a: the old IR, or its dict form.
        b: the new IR, or its dict form.

    Returns:
        The changes. There are none if and only if the two IRs are equal apart from the names of
        nodes. Values of different types, such as 1 and 1.0, differ.

    Raises:
        InvalidIrError: a dict does not have the dict form. The rules of the IRs are not checked.

    Example:
        >>> import torch, layergraph as lg
        >>> a = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3)))
        >>> b = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 4)))
        >>> print(lg.diff(a, b))
        0:
          ~ attribute out_features: 3 -> 4
    """
    one, other = (each if isinstance(each, Ir) else Ir.from_dict(each) for each in (a, b))
    return Difference(tuple(_Irs(one, other).changes()))


class _Irs:
    def __init__(self, a: Ir, b: Ir) -> None:
        self._a = a
        self._b = b
        self._matching = match(a, b)
        self._trains = [changes_of_mode(ir, ir.root) for ir in (a, b)]

    def changes(self) -> Iterator[Change]:
        names = self._matching.names
        if self._a.root != self._b.root:
            yield Change(None, ("root",), self._a.root, self._b.root)
        kept = [names[name] for name in self._a if name in names]
        for each in compare_order(("order",), kept, list(self._b)):
            yield Change(None, *each)
        for name, one in self._a.items():
            if name not in names:
                yield Change(name, (), before=layer_text(one))
            else:
                for each in self._layer(name, names[name]):
                    yield Change(names[name], *each)
        for name, other in self._b.items():
            if name not in self._matching.origins:
                yield Change(name, (), after=layer_text(other))

    def _layer(self, name: str, there: str) -> Iterator[Found]:
        one, other = self._a[name], self._b[there]
        for field in ("name", "type"):
            before, after = getattr(one, field), getattr(other, field)
            is_told = field == "name" and there in self._matching.moved
            if not same(before, after) and not is_told:
                yield (field,), before, after
        was, now = self._trains[0].get(name), self._trains[1].get(there)
        if was is not now:
            yield ("training",), was, now
        yield from compare_mappings(("data",), one.data, other.data)
        yield from compare_mappings(("kept_modes",), one.kept_modes, other.kept_modes)
        tensors = {each: self._matching.tensor(spec) for each, spec in one.tensors.items()}
        yield from _compare_tensors(tensors, other.tensors)
        yield from self._children(name, one.children, other.children)
        renamed = self._matching.graph
        yield from compare_graphs(renamed(one), other, self._is_retyped)
        if one.evaluation is not None and other.evaluation is not None:
            found = compare_graphs(renamed(one.evaluation), other.evaluation, self._is_retyped)
            yield from ((("evaluation", *path), before, after) for path, before, after in found)
        elif one.evaluation is not None:
            yield ("evaluation",), _told(one), ABSENT
        elif other.evaluation is not None:
            yield ("evaluation",), ABSENT, _told(other)

    def _children(
        self, name: str, one: Mapping[str, str] | None, other: Mapping[str, str] | None
    ) -> Iterator[Found]:
        if one is None or other is None:
            if one is not other:
                yield ("children",), one, other
            return
        matching = self._matching
        renumbered = matching.renumbered.get(name, {})
        if renumbered:
            yield ("children",), list(renumbered), list(renumbered.values())
        # changes() reports added and removed layers, so leave them out here.
        before = {
            renumbered.get(child, child): matching.name(target)
            for child, target in one.items()
            if target in matching.names or target not in self._a
        }
        after = {
            child: target
            for child, target in other.items()
            if target in matching.origins or target not in self._b
        }
        yield from compare_mappings(("children",), before, after)
        yield from compare_order(("children",), list(before), list(after))

    def _is_retyped(self, one: Node, other: Node) -> bool:
        origin = self._matching.origins.get(other.implementation)
        if origin is None or one.implementation != other.implementation:
            return False
        before, after = self._a[origin], self._b[other.implementation]
        return (one.type, other.type) == (before.type, after.type)


def _compare_tensors(
    one: Mapping[str, TensorSpec], other: Mapping[str, TensorSpec]
) -> Iterator[Found]:
    for name in dict.fromkeys([*one, *other]):
        before, after = one.get(name), other.get(name)
        where = ("tensors", str(name))
        if before is None or after is None:
            was, now = (ABSENT if each is None else repr(each) for each in (before, after))
            yield where, was, now
        else:
            yield from compare_mappings(where, _said(before), _said(after))
    yield from compare_order(("tensors",), list(one), list(other))


def _said(spec: TensorSpec) -> dict[str, Any]:
    """Return the fields of a tensor; its value, which may be long, as a digest."""
    said = spec.said()
    if spec.value is not None:
        digest = hashlib.sha256(spec.value).hexdigest()
        said["value"] = f"{len(spec.value)} bytes, SHA-256 {digest}"
    return said


def _told(implementation: Implementation) -> str:
    graph = implementation.evaluation
    return f"its own graph, with {len(graph.nodes) if graph else 0} nodes"
