"""Diagrams as text: mermaid, and the language of Graphviz."""

from __future__ import annotations

import html
from collections.abc import Iterator

from layergraph_view.boxes import Box, boxes_of
from layergraph_view.document import Document

_INDENT = "    "


def mermaid(made: Document, depth: int) -> str:
    """Return a mermaid flowchart."""
    return "\n".join(["flowchart TD", *_mermaid(boxes_of(made, depth), "n", 1)])


def _mermaid(box: Box, prefix: str, level: int) -> Iterator[str]:
    indent = _INDENT * level
    if not box.boxes and level == 1:
        yield f'{indent}{prefix}["{_words(box)}"]'
    for number, each in enumerate(box.boxes):
        name = f"{prefix}{number}"
        if each.boxes:
            yield f'{indent}subgraph {name}["{_words(each)}"]'
            yield from _mermaid(each, f"{name}_", level + 1)
            yield f"{indent}end"
        else:
            yield f'{indent}{name}["{_words(each)}"]'
    for line in box.lines:
        arrow = "-.->" if line.is_condition else "-->"
        label = f'|"{_entities(line.label)}"|' if line.label else ""
        yield f"{indent}{prefix}{line.src} {arrow}{label} {prefix}{line.sink}"


_PLAIN = frozenset(" ._,:…·\N{MULTIPLICATION SIGN}")


def _words(box: Box) -> str:
    return "<br>".join(_entities(each) for each in (box.title, box.subtitle) if each)


def _entities(text: str) -> str:
    """Return a text in which all that mermaid or HTML could take for syntax is an entity."""
    return "".join(each if each.isalnum() or each in _PLAIN else f"#{ord(each)};" for each in text)


def dot(made: Document, depth: int) -> str:
    """Return a directed graph in the language of Graphviz."""
    lines = [
        f"digraph {_quoted(made.title)} {{",
        f"{_INDENT}compound=true",
        f'{_INDENT}node [shape=box, style=rounded, fontname="monospace", fontsize=10]',
        f'{_INDENT}edge [fontname="monospace", fontsize=9]',
        *_dot(boxes_of(made, depth), "n", 1),
        "}",
    ]
    return "\n".join(lines)


def _dot(box: Box, prefix: str, level: int) -> Iterator[str]:
    indent = _INDENT * level
    if not box.boxes and level == 1:
        yield f"{indent}{prefix} [label={_label(box)}]"
    for number, each in enumerate(box.boxes):
        name = f"{prefix}{number}"
        if each.boxes:
            yield f"{indent}subgraph cluster_{name} {{"
            yield f"{indent}{_INDENT}label={_label(each)}"
            yield from _dot(each, f"{name}_", level + 1)
            yield f"{indent}}}"
        else:
            yield f"{indent}{name} [label={_label(each)}]"
    for line in box.lines:
        ends = f"{prefix}{line.src}", f"{prefix}{line.sink}"
        source, sink = box.boxes[line.src], box.boxes[line.sink]
        options = [f"label={_quoted(line.label)}"] if line.label else []
        options += ["style=dashed"] if line.is_condition else []
        # An edge ends at nodes; Graphviz cuts it at the border of the cluster that is named.
        options += [f"ltail=cluster_{ends[0]}"] if source.boxes else []
        options += [f"lhead=cluster_{ends[1]}"] if sink.boxes else []
        source_name, sink_name = _inside(source, ends[0], -1), _inside(sink, ends[1], 0)
        said = f" [{', '.join(options)}]" if options else ""
        yield f"{indent}{source_name} -> {sink_name}{said}"


def _inside(box: Box, name: str, which: int) -> str:
    """Return the first or the last node in a box."""
    while box.boxes:
        number = which % len(box.boxes)
        box, name = box.boxes[number], f"{name}_{number}"
    return name


def _label(box: Box) -> str:
    return _quoted("\n".join(filter(None, [box.title, box.subtitle])))


def _quoted(text: str) -> str:
    """Return a quoted text; Graphviz reads entities of HTML in it."""
    plain = html.escape(text, quote=False).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + plain.replace("\n", "\\n") + '"'
