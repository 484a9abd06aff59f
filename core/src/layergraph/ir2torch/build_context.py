"""What handlers run in while they make layers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from layergraph.ir import Implementation


class BuildContext(Protocol):
    """Something that handlers run in."""

    def around(self, layer: object, /) -> AbstractContextManager[Any] | None:
        """What the handler runs in that makes a layer; None for nothing.

        Args:
            layer: what it is made from; equal for layers that are made alike. None: others may be
                inside, so that none is like it.
        """


class Retrying(BuildContext, Protocol):
    """Something that handlers run in, and may have to run in twice."""

    def accepts(self, module: object, /) -> bool:
        """Return whether a layer can stay as it was made; if not, the handler runs once more.

        Args:
            module: the layer; None if the handler failed.
        """


class OnDevice:
    """Makes tensors on a device that is not the default one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def around(self, _: object, /) -> AbstractContextManager[Any]:
        """The device, for each layer."""
        return self._device


def layer_of(implementation: Implementation) -> object:
    """What tells whether two layers are made alike; None where that depends on others."""
    if implementation.children or implementation.nodes:
        return None
    return implementation.type, repr(implementation.data), repr(implementation.tensors)
