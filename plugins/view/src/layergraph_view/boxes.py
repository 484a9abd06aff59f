"""Boxes: the part of a document that a picture or a diagram shows, opened to a depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from layergraph_view.document import Document, Layer, Level, Step
from layergraph_view.groups import Group


@dataclass(slots=True, eq=False)
class Line:
    """An edge between two boxes of one level.

    Attributes:
        src: the position of the source box.
        sink: the position of the sink box, which is higher.
        label: the shape of the value; empty if unknown.
        is_condition: True if the value is only the condition of the sink.
    """

    src: int
    sink: int
    label: str
    is_condition: bool


@dataclass(slots=True, eq=False)
class Box:
    """A node, a group of nodes or the end of an edge that leaves a group.

    Attributes:
        title: its title.
        subtitle: more of its name; may be empty.
        category: ``layer``, ``composite``, ``group``, ``port``, ``body``, or the kind of the node.
        boxes: the boxes inside, in execution order; empty if it is closed.
        lines: the edges between those.
    """

    title: str
    subtitle: str
    category: str
    boxes: list[Box] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)


def boxes_of(made: Document, depth: int) -> Box:
    """Return the box of a model, opened to a depth.

    An opened repeat shows the steps of the first repetition.
    """
    layer = made.layers[made.root]
    box = Box(made.title, layer.type, "root" if layer.levels else "layer")
    drawing = _Drawing(made)
    waiting = [(box, drawing.graph(layer), layer, depth)]
    while waiting:
        around, graph, owner, left = waiting.pop()
        if graph is not None and left > 0:
            waiting += drawing.open(around, graph, owner, left - 1)
    return box


_Graph = tuple[Level, int, int, list[Group]]
_Waiting = tuple[Box, _Graph | None, Layer, int]


class _Drawing:
    def __init__(self, made: Document) -> None:
        self._made = made

    def graph(self, layer: Layer) -> _Graph | None:
        """Return the graph of a layer in the mode of the model."""
        if not layer.levels:
            return None
        level = layer.levels[-1 if self._made.evaluates else 0]
        return level, 0, len(level.steps), level.groups

    def open(self, around: Box, graph: _Graph, owner: Layer, left: int) -> Iterator[_Waiting]:
        """Put boxes into a box, and yield those that may be opened too."""
        level, start, end, groups = graph
        sources = {src for src, sink, _ in level.edges if src < start <= sink < end}
        readers = {src for src, sink, _ in level.edges if start <= src < end <= sink}
        at: dict[tuple[str, int], int] = {}
        for src in sorted(sources):
            at["from", src] = self._add(around, Box(level.steps[src].name, "from", "port"))
        inside = {each.start: each for each in groups}
        place = start
        while place < end:
            group = inside.get(place)
            behind = place + 1 if group is None else group.end
            if group is None:
                box, graphs = self._step(level.steps[place], owner)
                yield from ((each, graph, layer, left) for each, graph, layer in graphs)
            else:
                box = Box(*self._names(level, group, owner), "group")
                yield box, _shown(level, group), owner, left
            number = self._add(around, box)
            at |= {("at", each): number for each in range(place, behind)}
            place = behind
        for src in sorted(readers):
            at["to", src] = self._add(around, Box(level.steps[src].name, "to", "port"))
        around.lines = _lines(level, start, end, at)

    @staticmethod
    def _add(around: Box, box: Box) -> int:
        around.boxes.append(box)
        return len(around.boxes) - 1

    def _step(self, step: Step, owner: Layer) -> tuple[Box, list[tuple[Box, _Graph | None, Layer]]]:
        if step.target is not None:
            layer = self._made.layers[step.target]
            own = _last_name(layer.name, owner)
            if not layer.levels:
                return Box(step.label, own, "layer"), []
            box = Box(own, layer.type, "composite")
            return box, [(box, self.graph(layer), layer)]
        last = step.label.rpartition(".")[2]
        names = {
            "input": (step.name, "input"),
            "output": ("output", ""),
            "state": (last, "state"),
            "guard": ("guard", step.name),
        }
        box = Box(*names.get(step.kind, (last, step.name)), step.kind)
        for each in step.bodies:
            layer = self._made.layers[each]
            box.boxes.append(Box(_last_name(layer.name, owner), "body", "body"))
        bodies = zip(box.boxes, (self._made.layers[each] for each in step.bodies), strict=True)
        return box, [(inner, self.graph(layer), layer) for inner, layer in bodies]

    def _names(self, level: Level, group: Group, owner: Layer) -> tuple[str, str]:
        def name(place: int) -> str:
            step = level.steps[place]
            if step.target is None:
                return step.name
            return _last_name(self._made.layers[step.target].name, owner)

        count = group.end - group.start
        span = f"{name(group.start)} … {name(group.end - 1)}"
        if not group.times:
            return f"{count} nodes", span
        titles = []
        for place in range(group.start, group.start + count // group.times):
            step = level.steps[place]
            stem = name(place).rstrip("0123456789").rstrip("._")
            is_composite = step.target is not None and self._made.layers[step.target].levels
            titles.append(stem if is_composite and stem else step.label.rpartition(".")[2])
        return f"{', '.join(dict.fromkeys(titles))} × {group.times}", span  # noqa: RUF001 the sign for times


def _last_name(name: str, owner: Layer) -> str:
    return name.removeprefix(f"{owner.name}.")


def _shown(level: Level, group: Group) -> _Graph:
    if not group.times:
        return level, group.start, group.end, group.groups
    return level, group.start, group.start + (group.end - group.start) // group.times, []


def _lines(level: Level, start: int, end: int, at: dict[tuple[str, int], int]) -> list[Line]:
    found: dict[tuple[int, int], Line] = {}
    for src, sink, shape in level.edges:
        if sink < start or src >= end or (src < start and sink >= end):
            continue
        source = at["at", src] if src >= start else at["from", src]
        target = at["at", sink] if sink < end else at["to", src]
        if source == target:
            continue
        is_condition = level.steps[sink].condition == level.steps[src].name
        line = found.get((source, target))
        if line is None:
            found[source, target] = Line(source, target, shape, is_condition)
            continue
        line.is_condition = line.is_condition and is_condition
        if shape and shape not in line.label.split("; "):
            line.label = "; ".join(filter(None, [line.label, shape]))
    return list(found.values())
