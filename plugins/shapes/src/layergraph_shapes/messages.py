"""The words of messages about a walk."""

from __future__ import annotations

from layergraph.errors import ShapeError
from layergraph.ir import Implementation
from layergraph_shapes.observer import Path


def undetermined(path: Path, called: Implementation | str, error: Exception) -> ShapeError:
    """Return the error for a call whose value depends on numbers."""
    return ShapeError(
        f"{place(path)}: the numbers in a tensor decide what {text_of(called)} returns, and shapes "
        f"do not tell it ({error})"
    )


def place(path: Path) -> str:
    """Return the words for the node of a path."""
    return f"node {'/'.join(path)!r}" if path else "the model"


def text_of(called: Implementation | str) -> str:
    """Return the words for a layer or function."""
    if isinstance(called, Implementation):
        return f"the {called.type} {called.name!r}"
    return called or "a function"
