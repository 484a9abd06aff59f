"""Static SVG pictures for papers, in light colours."""

from __future__ import annotations

import html
import importlib.resources
import re
from collections.abc import Iterator

from layergraph_view.boxes import Box, boxes_of
from layergraph_view.document import Document
from layergraph_view.layout import Edge, lay_out

_CHARACTER = 7.3  # the width of a character in a monospace font
_SMALL = 6.2
_MOST, _MOST_OF_SHAPE = 40, 26
_HEADER, _PADDING = 28.0, 14.0
_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
    'markerHeight="7" orient="auto"><path d="M0,0L10,5L0,10z"/></marker></defs>'
)


def svg(made: Document, depth: int) -> str:
    """Return a picture of a document, opened to a depth."""
    drawn = _Drawn(boxes_of(made, depth))
    width, height = drawn.width + 16, drawn.height + 16
    box = f'width="{width:.0f}" height="{height:.0f}" viewBox="-8 -8 {width:.1f} {height:.1f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f"<title>{html.escape(made.title)}</title>",
        f"<style>{_style()}</style>",
        _ARROW,
        *drawn.lines(0, 0),
        "</svg>",
    ]
    return "\n".join(lines)


def _style() -> str:
    """Return the style of the page's picture without CSS variables, which few programs support."""
    folder = importlib.resources.files("layergraph_view").joinpath("page")
    text = folder.joinpath("picture.css").read_text("utf-8").replace("\r\n", "\n")
    return re.sub(r"var\(--\w+, ([^)]*)\)", r"\1", text)


class _Drawn:
    """A box with its size, and the positions of its contents."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._inner = [_Drawn(each) for each in box.boxes]
        self._texts = [_clipped(each) for each in (box.title, box.subtitle) if each]
        self._edges = [
            Edge(line.src, line.sink, len(_clipped(line.label, _MOST_OF_SHAPE)) * _SMALL)
            for line in box.lines
        ]
        longest = max(map(len, self._texts), default=0)
        if not self._inner:
            self.width = max(64.0, longest * _CHARACTER + 24)
            self.height = 42.0 if len(self._texts) > 1 else 28.0
            return
        sizes = [(each.width, each.height) for each in self._inner]
        self._middles, inner_width, inner_height = lay_out(sizes, self._edges)
        title = len("  ".join(self._texts)) * _CHARACTER + 20
        self.width = max(inner_width, title) + 2 * _PADDING
        self.height = inner_height + _HEADER + _PADDING
        self._shift = (self.width - inner_width) / 2

    def lines(self, x: float, y: float) -> Iterator[str]:
        """Yield the elements of the box, at a place in the box around it."""
        is_open = " open" if self._inner else ""
        place = f' transform="translate({x:.1f},{y:.1f})"' if x or y else ""
        yield f'<g class="box {self._box.category}{is_open}"{place}>'
        radius = 8 if self._inner else 6
        yield f'<rect width="{self.width:.1f}" height="{self.height:.1f}" rx="{radius}"/>'
        if self._inner:
            yield _text("title frame", 10, 18, "  ".join(self._texts))
            yield from self._inside()
        else:
            for kind, text, top in zip(("title", "subtitle"), self._texts, (18, 34), strict=False):
                yield _text(kind, self.width / 2, top, text)
        yield "</g>"

    def _inside(self) -> Iterator[str]:
        for edge, line in zip(self._edges, self._box.lines, strict=True):
            kind = "edge condition" if line.is_condition else "edge"
            points = [(x + self._shift, y + _HEADER) for x, y in edge.points]
            yield f'<path class="{kind}" d="{_path(points)}" marker-end="url(#arrow)"/>'
            if edge.width:
                x, y = edge.label
                label = _clipped(line.label, _MOST_OF_SHAPE)
                yield _text("shape", x + self._shift, y + _HEADER + 4, label)
        for each, (x, y) in zip(self._inner, self._middles, strict=True):
            left = x - each.width / 2 + self._shift
            yield from each.lines(left, y - each.height / 2 + _HEADER)


def _clipped(text: str, most: int = _MOST) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


def _path(points: list[tuple[float, float]]) -> str:
    """Return a smooth line through points."""
    start, *rest = points
    if len(rest) < 2:
        return "M{:.1f},{:.1f}L{:.1f},{:.1f}".format(*start, *rest[0])
    path = "M{:.1f},{:.1f}".format(*start)
    for index, (x, y) in enumerate(rest[:-1]):
        end_x, end_y = rest[index + 1]
        if index < len(rest) - 2:
            end_x, end_y = (x + end_x) / 2, (y + end_y) / 2
        path += f"Q{x:.1f},{y:.1f} {end_x:.1f},{end_y:.1f}"
    return path
