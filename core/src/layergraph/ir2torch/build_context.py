"""The contexts in which handlers make layers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from layergraph.ir import Implementation


class BuildContext(Protocol):
    """A source of contexts for handlers."""

    def around(self, layer: object, /) -> AbstractContextManager[Any] | None:
        """Return the context in which a handler makes a layer; None for no context.

        Args:
            layer: a key, equal for layers that are made alike, as :func:`layer_of` returns it; None
                for a layer that is like no other.
        """


class Retrying(BuildContext, Protocol):
    """A source of contexts that can ask for a second run of a handler."""

    def accepts(self, module: object, /) -> bool:
        """Return whether to keep a layer. If not, the handler runs once more.

        Args:
            module: the layer; None if the handler failed.
        """


class OnDevice:
    """A source of contexts that create tensors on one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def around(self, _: object, /) -> AbstractContextManager[Any]:
        """Return the device, which is a context manager."""
        return self._device


def layer_of(implementation: Implementation) -> object:
    """Return a key that is equal for layers that are made alike; None for a composite."""
    if implementation.children or implementation.nodes:
        return None
    return implementation.type, repr(implementation.data), repr(implementation.tensors)
