"""The entry of a model in the zoo, before it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from zoo.weights import enliven

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Sizes:
    """The sizes of the inputs that a model is captured on, and of those that it is tried on.

    The length is whatever of an input may vary besides the batch: of a text its tokens, of a
    sound its samples, of a picture its height and width.
    """

    length: int
    other_length: int
    batch: int = 2
    other_batch: int = 3


@dataclass(frozen=True)
class Entry:
    """A model of the zoo: how to make it, and what to give it."""

    name: str
    family: str
    make: Callable[[], nn.Module]
    make_inputs: Callable[[int, int], Inputs]
    sizes: Sizes

    def model(self) -> nn.Module:
        """A new model in evaluation mode, the same one each time."""
        torch.manual_seed(0)
        model = self.make().eval()
        enliven(model)
        return model

    def inputs(self, batch: int, length: int, seed: int) -> Inputs:
        """Positional and keyword arguments, new ones each time, the same for the same seed."""
        torch.manual_seed(seed)
        return self.make_inputs(batch, length)
