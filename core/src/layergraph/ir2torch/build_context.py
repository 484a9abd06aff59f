"""Helpers of the build: keys of equal layers, and errors of torch with their place in the IR."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from layergraph.errors import BuildError, LayergraphError, Place, first_line
from layergraph.ir import Implementation


def layer_of(implementation: Implementation) -> object:
    """Return a key of a layer, equal for equal layers; None if the layer depends on others."""
    if implementation.children or implementation.nodes:
        return None
    return implementation.type, repr(implementation.data), repr(implementation.tensors)


@contextmanager
def refusals(where: Place) -> Iterator[None]:
    """Turn an error of torch into one that names the place in the IR."""
    try:
        yield
    except LayergraphError:
        raise
    except Exception as error:
        raise BuildError(
            f"{where}: torch refuses to make it: {type(error).__name__}: {first_line(error)}; "
            "correct what is said of it"
        ) from error
