"""Parts of error messages of a walk."""

from __future__ import annotations

from layergraph.errors import ShapeError
from layergraph.ir import Implementation
from layergraph_shapes.observer import Path


def undetermined(path: Path, called: Implementation | str, error: Exception) -> ShapeError:
    """Return the error for a call whose result depends on numbers."""
    return ShapeError(
        f"{place(path)}: the result of {text_of(called)} depends on numbers in a tensor, and "
        f"shapes are not enough ({error})"
    )


def place(path: Path) -> str:
    """Return the text for the node of a path."""
    return f"node {'/'.join(path)!r}" if path else "the model"


def text_of(called: Implementation | str) -> str:
    """Return the text for a layer or function."""
    if isinstance(called, Implementation):
        return f"the {called.type} {called.name!r}"
    return called or "a function"
