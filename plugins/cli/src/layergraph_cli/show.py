"""``layergraph show``: list the layers of a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from layergraph.ir import Implementation, Ir
from layergraph.ir.modes import changes_of_mode
from layergraph.ir.text import layer_text, lines
from layergraph_cli.output import as_json, counted, line
from layergraph_cli.shapes import show_shapes
from layergraph_cli.sizes import Size, Sizes, sizes_of
from layergraph_files.limits import DEFAULT_LIMITS
from layergraph_files.reader import Opened, opened
from layergraph_files.values import encode

# A larger indent could be wider than the terminal.
_DEEPEST_INDENT = 60


def show(
    file: Annotated[Path, typer.Argument(help="A .safetensors or .json file, index or folder.")],
    depth: Annotated[
        int | None, typer.Option(min=0, help="Show only this many levels below the model.")
    ] = None,
    *,
    graph: Annotated[
        bool, typer.Option("--graph", help="Show how layers are connected, without sizes.")
    ] = False,
    guards: Annotated[
        bool, typer.Option("--guards", help="Show the guards that a rebuilt model checks.")
    ] = False,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT",
            help="Show the shape of every value for these inputs: 2,3,32,32 or "
            "mask=bool[batch,length]. Once for each input.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the layers of a model, with attributes and sizes.

    layergraph counts the numbers in parameters and in buffers of the state dict, and their bytes,
    each tensor once. It reads no weights.
    """
    with opened(file, DEFAULT_LIMITS) as model:
        if graph:
            wiring = list(lines(model.ir))
            as_json({"file": str(file), "graph": wiring}) if json else _show_lines(wiring)
            return
        if guards:
            found = [asdict(each) for each in model.ir.guards]
            listed = [str(each) for each in model.ir.guards]
            as_json({"file": str(file), "guards": found}) if json else _show_lines(listed)
            return
        if shapes:
            show_shapes(file, model.ir, shapes, json=json)
            return
        sizes = sizes_of(model, DEFAULT_LIMITS)
        as_json(_form(file, model, sizes, depth)) if json else _show(model.ir, sizes, depth)


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the list: a layer at one place in the model.

    Attributes:
        child: the name of the layer in its parent.
        level: the number of its enclosing modules.
        implementation: the layer.
        seen: True if the layer is already in the list, at another place.
        size: the size of the layer and everything inside it, without layers already in the list.
        training: its mode, if its parent has the other mode.
    """

    child: str
    level: int
    implementation: Implementation
    seen: bool
    size: Size
    training: bool | None


def _rows(ir: Ir, sizes: Sizes) -> list[_Row]:
    """List the layers of a model depth first. A shared layer is expanded once."""
    found: list[tuple[str, int, str, bool]] = []
    seen: set[str] = set()
    stack = [(ir.root, 0, ir.root)]
    while stack:
        child, level, name = stack.pop()
        found.append((child, level, name, name in seen))
        if name not in seen:
            seen.add(name)
            children = ir[name].children or {}
            stack += [(each, level + 1, target) for each, target in reversed(children.items())]
    rows: list[_Row] = []
    training = changes_of_mode(ir, ir.root)
    open_sizes: dict[int, Size] = {}  # by level, the sum of the siblings passed so far
    for child, level, name, was_seen in reversed(found):
        size = open_sizes.pop(level + 1, Size())
        size += Size() if was_seen else sizes.own.get(name, Size())
        open_sizes[level] = open_sizes.get(level, Size()) + size
        rows.append(_Row(child, level, ir[name], was_seen, size, training.get(name)))
    return rows[::-1]


def _show_lines(wiring: list[str]) -> None:
    for each in wiring:
        line(each)


def _show(ir: Ir, sizes: Sizes, depth: int | None) -> None:
    rows = _rows(ir, sizes)
    total = sizes.total
    columns = _columns(total, sizes)
    widths = [max(len(title), len(f"{count:,}")) for title, count in columns]
    if sizes.are_known:
        heads = [f"{title:>{width}}  " for (title, _), width in zip(columns, widths, strict=True)]
        line(("".join([*heads, "layer"]), "bold"))
    for row in rows:
        if depth is None or row.level <= depth:
            counts = zip(_columns(row.size, sizes), widths, strict=True)
            shown = [f"{count:>{width},}  " for (_, count), width in counts]
            line(("".join(shown) if sizes.are_known else "", "cyan"), *_text(row))
    line(f"{counted(len(ir), 'layer')}{_summary(total, sizes)}")


def _columns(size: Size, sizes: Sizes) -> list[tuple[str, int]]:
    if not sizes.knows_buffers:
        return [("numbers", size.numbers), ("bytes", size.bytes)]
    return [("parameters", size.parameters), ("buffers", size.buffers), ("bytes", size.bytes)]


def _summary(total: Size, sizes: Sizes) -> str:
    if not sizes.are_known:
        return f"; sizes are unknown: {sizes.reason}"
    tensors, size = counted(total.tensors, "tensor"), counted(total.bytes, "byte")
    if not sizes.knows_buffers:
        numbers = counted(total.numbers, "number")
        return f", {tensors}, {numbers}, {size}; which are buffers is unknown: {sizes.reason}"
    parameters = counted(total.parameters, "parameter")
    return f", {tensors}, {parameters}, {total.buffers:,} in buffers, {size}"


def _size(size: Size, sizes: Sizes) -> dict[str, int | None] | None:
    if not sizes.are_known:
        return None
    known = sizes.knows_buffers
    return {
        "tensors": size.tensors,
        "numbers": size.numbers,
        "bytes": size.bytes,
        "parameters": size.parameters if known else None,
        "buffers": size.buffers if known else None,
    }


def _text(row: _Row) -> Iterator[str | tuple[str, str]]:
    yield "  " * min(row.level, _DEEPEST_INDENT)
    yield row.child, "bold"
    here = row.implementation
    yield f": {f'see {here.name}' if row.seen else layer_text(here, row.training)}"


def _form(file: Path, model: Opened, sizes: Sizes, depth: int | None) -> dict[str, Any]:
    def listed(row: _Row) -> dict[str, Any]:
        each = row.implementation
        return {
            "name": each.name,
            "child": row.child,
            "level": row.level,
            "seen": row.seen,
            "type": each.type,
            "data": {name: encode(value) for name, value in each.data.items()},
            "training": row.training,
            "size": _size(row.size, sizes),
        }

    rows = _rows(model.ir, sizes)
    return {
        "file": str(file),
        "root": model.ir.root,
        "has_weights": bool(model.weights),
        "sizes": {"from": sizes.source, "reason": sizes.reason},
        "total": _size(sizes.total, sizes),
        "layers": [listed(row) for row in rows if depth is None or row.level <= depth],
    }
