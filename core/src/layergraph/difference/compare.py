"""Comparing two IRs, layer by layer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from layergraph.difference.graphs import Found, compare_graphs, compare_mappings, compare_order
from layergraph.difference.report import ABSENT, Change, Difference
from layergraph.difference.values import same
from layergraph.ir import Implementation, Ir, Node, TensorSpec
from layergraph.ir.text import layer_text

Form = Mapping[str, Mapping[str, Any]]


def diff(a: Ir | Form, b: Ir | Form) -> Difference:
    """Compare the structure of two models.

    Layers are matched by their names, which are their paths in the model. The nodes of two graphs
    are matched by what they do, in execution order, whatever they are called. Weights are not
    compared: an IR has none.

    Args:
        a: the IR that was, or its dict form.
        b: the IR that is, likewise.

    Returns:
        What differs: nothing if and only if the two are equal, with the same types of values, but
        for the names of nodes. It takes time in proportion to the sizes of the IRs.

    Raises:
        InvalidIrError: a dict form is none. Whether the IRs keep their rules is not looked at.
    """
    one, other = (each if isinstance(each, Ir) else Ir.from_dict(each) for each in (a, b))
    return Difference(tuple(_Irs(one, other).changes()))


class _Irs:
    def __init__(self, a: Ir, b: Ir) -> None:
        self._a = a
        self._b = b

    def changes(self) -> Iterator[Change]:
        if self._a.root != self._b.root:
            yield Change(None, ("root",), self._a.root, self._b.root)
        for each in compare_order(("order",), list(self._a), list(self._b)):
            yield Change(None, *each)
        for name in dict.fromkeys([*self._a, *self._b]):
            if name not in self._b:
                yield Change(name, (), before=layer_text(self._a[name]))
            elif name not in self._a:
                yield Change(name, (), after=layer_text(self._b[name]))
            else:
                for each in self._layer(self._a[name], self._b[name]):
                    yield Change(name, *each)

    def _layer(self, one: Implementation, other: Implementation) -> Iterator[Found]:
        for field in ("name", "type", "training"):
            before, after = getattr(one, field), getattr(other, field)
            if not same(before, after):
                yield (field,), before, after
        yield from compare_mappings(("data",), one.data, other.data)
        yield from _compare_tensors(one.tensors, other.tensors)
        yield from self._children(one.children, other.children)
        yield from compare_graphs(one, other, self._is_retyped)
        if one.evaluation is not None and other.evaluation is not None:
            found = compare_graphs(one.evaluation, other.evaluation, self._is_retyped)
            yield from ((("evaluation", *path), before, after) for path, before, after in found)
        elif one.evaluation is not None:
            yield ("evaluation",), _told(one), ABSENT
        elif other.evaluation is not None:
            yield ("evaluation",), ABSENT, _told(other)

    def _children(
        self, one: Mapping[str, str] | None, other: Mapping[str, str] | None
    ) -> Iterator[Found]:
        if one is None or other is None:
            if one is not other:
                yield ("children",), one, other
            return
        for path, before, after in compare_mappings(("children",), one, other):
            # That a layer is new, or gone, says as much.
            is_told = before is ABSENT and after not in self._a
            is_told = is_told or (after is ABSENT and before not in self._b)
            if not is_told:
                yield path, before, after
        yield from compare_order(("children",), list(one), list(other))

    def _is_retyped(self, one: Node, other: Node) -> bool:
        before, after = self._a.get(one.implementation), self._b.get(other.implementation)
        if before is None or after is None or one.implementation != other.implementation:
            return False
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
    """What is said of a tensor; its value, which may be long, by its digest."""
    said = spec.said()
    if spec.value is not None:
        digest = hashlib.sha256(spec.value).hexdigest()
        said["value"] = f"{len(spec.value)} bytes, SHA-256 {digest}"
    return said


def _told(implementation: Implementation) -> str:
    graph = implementation.evaluation
    return f"a graph of its own, with {len(graph.nodes) if graph else 0} nodes"
