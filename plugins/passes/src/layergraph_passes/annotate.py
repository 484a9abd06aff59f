"""Annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layergraph.ir import Value
    from layergraph_rewrite import Edit


def annotate(edit: Edit, *, name: str, value: Value, select: str = "*") -> None:
    """Annotate the layers and nodes of a selection.

    Args:
        edit: the edit.
        name: the name of the annotation, with a dot in it.
        value: its value.
        select: the selection, as in ``layergraph show --select``.
    """
    for call in edit.select(select):
        if call.type not in ("input", "output"):
            edit.annotate(call, {name: value})
            edit.report.add(call, f"annotated with {name}={value!r}")
