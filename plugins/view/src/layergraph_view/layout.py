"""Layered layout of pictures, from top to bottom.

The page uses dagre for this, which needs a browser. For pictures from Python, this module gives
each node the rank of the longest path to it, inserts a bend in each rank that an edge passes,
orders ranks by the average positions of neighbours, and moves each rank as close to its neighbours
as widths allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_SWEEPS = 24
_GAP = 24.0
_RANK_GAP = 30.0
_BEND_WEIGHT = 3.0
"""The weight of aligning a bend, relative to a box, so that long edges become straight."""


@dataclass(slots=True)
class Edge:
    """An edge to lay out.

    Attributes:
        src: the number of the source node.
        sink: the number of the sink node, which is higher.
        width: the width of its label; 0 without one.
        points: the bends, from top to bottom, in the result.
        label: the centre of the label, in the result.
    """

    src: int
    sink: int
    width: float
    points: list[tuple[float, float]] = field(default_factory=list)
    label: tuple[float, float] = (0.0, 0.0)


@dataclass(slots=True)
class _Place:
    """A node, or a bend of an edge."""

    width: float
    height: float
    rank: int
    weight: float = 1.0
    x: float = 0.0
    above: list[_Place] = field(default_factory=list)
    below: list[_Place] = field(default_factory=list)


def lay_out(
    sizes: Sequence[tuple[float, float]], edges: Sequence[Edge]
) -> tuple[list[tuple[float, float]], float, float]:
    """Lay out a graph, and put the points into its edges.

    Args:
        sizes: the width and the height of each node, in an order in which edges go forward.
        edges: the edges.

    Returns:
        The centre of each node, and the width and the height of all.
    """
    if not sizes:
        return [], 0.0, 0.0
    step = 2 if any(edge.width for edge in edges) else 1  # ranks between hold the labels
    ranks = _ranks(len(sizes), edges)
    places = [
        _Place(width, height, rank * step)
        for (width, height), rank in zip(sizes, ranks, strict=True)
    ]
    bends = [_bent(edge, places) for edge in edges]
    rows: list[list[_Place]] = [[] for _ in range(max(each.rank for each in places) + 1)]
    for place in (*places, *(each for line in bends for each in line)):
        rows[place.rank].append(place)
    _order(rows)
    _align(rows)
    heights = [max((each.height for each in row), default=0.0) for row in rows]
    centres, bottom = [], 0.0
    for height in heights:
        centres.append(bottom + height / 2)
        bottom += height + _RANK_GAP / step
    left = min(each.x - each.width / 2 for row in rows for each in row)
    right = max(each.x + each.width / 2 for row in rows for each in row)
    for edge, line in zip(edges, bends, strict=True):
        _draw(edge, [places[edge.src], *line, places[edge.sink]], centres, left)
    middles = [(each.x - left, centres[each.rank]) for each in places]
    return middles, right - left, bottom - _RANK_GAP / step


def _ranks(count: int, edges: Sequence[Edge]) -> list[int]:
    ranks = [0] * count
    closest = [-1] * count
    has_source = [False] * count
    for edge in sorted(edges, key=lambda each: each.src):
        ranks[edge.sink] = max(ranks[edge.sink], ranks[edge.src] + 1)
        has_source[edge.sink] = True
    for edge in edges:
        rank = ranks[edge.sink] - 1
        closest[edge.src] = rank if closest[edge.src] < 0 else min(rank, closest[edge.src])
    # A node without arguments, such as a tensor, goes right above its first reader.
    return [
        rank if has_source[node] or closest[node] < 0 else closest[node]
        for node, rank in enumerate(ranks)
    ]


def _bent(edge: Edge, places: Sequence[_Place]) -> list[_Place]:
    source, sink = places[edge.src], places[edge.sink]
    line = []
    for rank in range(source.rank + 1, sink.rank):
        is_label = edge.width and rank == source.rank + 1
        width, height = (edge.width, 14.0) if is_label else (1.0, 0.0)
        line.append(_Place(width, height, rank, _BEND_WEIGHT))
    for upper, lower in zip([source, *line], [*line, sink], strict=True):
        upper.below.append(lower)
        lower.above.append(upper)
    return line


def _order(rows: list[list[_Place]]) -> None:
    """Order each row by the average place of its neighbours in the row before."""
    for row in rows:
        _number(row)
    for sweep in range(_SWEEPS):
        is_down = sweep % 2 == 0
        for row in rows if is_down else reversed(rows):
            wishes = {}
            for each in row:
                near = each.above if is_down else each.below
                wishes[id(each)] = sum(one.x for one in near) / len(near) if near else each.x
            row.sort(key=lambda each, wishes=wishes: wishes[id(each)])  # type: ignore[misc]
            _number(row)


def _number(row: list[_Place]) -> None:
    for number, place in enumerate(row):
        place.x = (number + 0.5) / len(row)


def _align(rows: list[list[_Place]]) -> None:
    """Set the x of each place: close to its neighbours, with the gaps that widths need."""
    for row in rows:
        total = 0.0
        for place in row:
            place.x = total + place.width / 2
            total += place.width + _GAP
        for place in row:
            place.x -= total / 2
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            _settle(row)


def _settle(row: list[_Place]) -> None:
    """Move the places of a row as little as possible from the averages of their neighbours.

    Neighbours that would overlap form a block at the average of their preferred positions.
    """
    blocks: list[list[float]] = []  # wish, weight, number of places
    offsets, offset = [], 0.0
    for place in row:
        near = [*place.above, *place.below]
        weights = [place.weight * each.weight for each in near]
        wish = place.x
        if near:
            wish = sum(w * each.x for w, each in zip(weights, near, strict=True)) / sum(weights)
        offsets.append(offset + place.width / 2)
        blocks.append([wish - offsets[-1], sum(weights) or 1.0, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            wish_b, weight_b, count_b = blocks.pop()
            wish_a, weight_a, count_a = blocks.pop()
            weight = weight_a + weight_b
            wish = (wish_a * weight_a + wish_b * weight_b) / weight
            blocks.append([wish, weight, count_a + count_b])
        offset += place.width + _GAP
    positions = [wish for wish, _, count in blocks for _ in range(int(count))]
    for place, position, start in zip(row, positions, offsets, strict=True):
        place.x = position + start


def _draw(edge: Edge, line: list[_Place], centres: Sequence[float], left: float) -> None:
    first, last = line[0], line[-1]
    edge.points = [
        (first.x - left, centres[first.rank] + first.height / 2),
        *((each.x - left, centres[each.rank]) for each in line[1:-1]),
        (last.x - left, centres[last.rank] - last.height / 2),
    ]
    if edge.width:
        edge.label = (line[1].x - left, centres[line[1].rank])
