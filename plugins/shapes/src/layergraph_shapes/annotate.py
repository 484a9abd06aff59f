"""``layergraph.annotate_shapes``: shapes as annotations of an IR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layergraph.ir import Ir, Symbol, Value
from layergraph.ir.values import map_leaves
from layergraph_shapes.described import Either, TensorMeta
from layergraph_shapes.observer import Path
from layergraph_shapes.propagation import Shapes, shapes

SHAPE = "layergraph.shape"
DTYPE = "layergraph.dtype"


def annotate_shapes(
    ir: Ir,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
    training: bool | None = None,
    decisions: Mapping[str, bool] | None = None,
) -> Ir:
    """Return a copy of an IR whose edges state the shape and dtype of their values.

    These are annotations in ``edge.data``. ``"layergraph.shape"`` is a tuple of sizes, and
    ``"layergraph.dtype"`` a :class:`~layergraph.ir.Symbol`. For a value in containers, both have
    the same containers, with None for each part that is no tensor. ``print`` shows them.

    If calls of a composite differ, or the ways of a decision, the annotation is a dict with the
    different ones: keys are the paths of the calls, or the names of decisions with True or False.

    Args:
        ir: the IR of the model.
        args: as for :func:`layergraph.shapes`.
        kwargs: as for :func:`layergraph.shapes`.
        sizes: as for :func:`layergraph.shapes`.
        training: as for :func:`layergraph.shapes`. Edges of the other mode keep their annotations.
        decisions: as for :func:`layergraph.shapes`.

    Raises:
        LayergraphError: as for :func:`layergraph.shapes`.

    Example:
        >>> import torch, layergraph as lg
        >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3)))
        >>> annotated = lg.annotate_shapes(ir, [("batch", 2)])
        >>> annotated["root"].edges["_0", "output"].data["layergraph.shape"]
        ('batch', 3)
    """
    found = shapes(ir, args, kwargs, sizes=sizes, training=training, decisions=decisions)
    copy = Ir.from_dict(ir.to_dict())
    values = _by_graph(copy, found)
    for name, is_training in found.modes.items():
        implementation = copy[name]
        graph = implementation if is_training else implementation.graphs[-1]
        for (source, _), edge in graph.edges.items():
            by_path = values.get((name, source))
            if by_path is not None:
                edge.data[SHAPE] = _one(by_path, _shape)
                edge.data[DTYPE] = _one(by_path, _dtype)
    return copy


def _by_graph(ir: Ir, found: Shapes) -> dict[tuple[str, str], dict[Path, Any]]:
    """Return the descriptions by implementation and node, for each path."""
    values: dict[tuple[str, str], dict[Path, Any]] = {}
    for path, value in found.items():
        owner = found.calls[path[:-1]] if path[:-1] else ir.root
        values.setdefault((owner, path[-1]), {})[path[:-1]] = value
    return values


def _one(by_path: Mapping[Path, Any], part: Any) -> Value:
    """Return the annotation for the descriptions of all calls."""
    parts = {path: _annotation(value, part) for path, value in by_path.items()}
    first, *others = parts.values()
    if all(other == first for other in others):
        return first
    return {"/".join(path): each for path, each in parts.items()}


def _annotation(value: Any, part: Any) -> Value:
    if type(value) is Either:
        ways = {True: value.if_true, False: value.if_false}
        return {
            f"{value.decision} is {answer}": _annotation(each, part)
            for answer, each in ways.items()
        }
    return map_leaves(
        lambda leaf: _annotation(leaf, part) if type(leaf) is Either else part(leaf), value
    )


def _shape(leaf: Any) -> Value:
    return leaf.shape if type(leaf) is TensorMeta else None


def _dtype(leaf: Any) -> Value:
    return Symbol(str(leaf.dtype)) if type(leaf) is TensorMeta else None
