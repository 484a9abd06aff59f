"""Context managers in which handlers run while they make layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch

from layergraph.errors import BuildError, LayergraphError, Place, first_line
from layergraph.ir import Implementation


class BuildContext(Protocol):
    """A context for the calls of handlers."""

    def around(self, layer: object, /) -> AbstractContextManager[Any] | None:
        """Return a context manager for the call of a handler; None for none.

        Args:
            layer: a key that is equal for layers that are made alike; None if the layer may hold
                others, so that no other is made alike.
        """


class Retrying(BuildContext, Protocol):
    """A context in which a handler may have to run twice."""

    def accepts(self, module: object, /) -> bool:
        """Return whether the layer is accepted; if not, the handler runs once more.

        Args:
            module: the layer; None if the handler failed.
        """


class OnDevice:
    """Makes tensors on a device that is not the default one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def around(self, _: object, /) -> AbstractContextManager[Any]:
        """Return the device, for each layer."""
        return self._device


def layer_of(implementation: Implementation) -> object:
    """Return a key that is equal for layers made alike; None if that depends on other layers."""
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
