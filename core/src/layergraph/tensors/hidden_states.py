"""Hidden states of layers: tensors that a layer keeps from one call to the next."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import nn


def hidden_states(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the buffers in which a layer keeps its state from one call to the next.

    No state dict holds such a buffer, and ``forward`` takes its value as an argument of its name.
    """
    passing = module.__dict__.get("_non_persistent_buffers_set")
    if not passing:
        return ()
    cls: Any = type(module)
    return tuple([each for each in _parameters(cls) if each in passing])


@functools.cache
def _parameters(cls: Any) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(cls.forward).parameters)
    except (TypeError, ValueError):  # it has no signature
        return ()
