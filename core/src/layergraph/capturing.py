"""The request to capture a model, and the object that a plugin answers it with."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from layergraph.errors import Unsupported
from layergraph.functions import Functions
from layergraph.state import Memory

if TYPE_CHECKING:
    from layergraph.plugins import Hooks
    from layergraph.torch2ir.indexing.module_index import ModuleIndex
    from layergraph.torch2ir.tracing.tracer import Tracer

Values = Literal["refuse", "assume"]
"""The answer to code that decides by a number in a tensor: refuse it, or put a guard there."""

Modes = Literal["both", "own"]
"""The modes to capture where code asks for its mode: both, or the one that the model is in."""


@dataclass(frozen=True, eq=False)
class CaptureRequest:
    """A model that is to be captured, with all that a tracer needs to know.

    Attributes:
        module_index: the modules of the model, each with the answer of the handlers.
        keys: the state-dict key of each of its tensors, by ``id``.
        memory: where these tensors lie.
        hooks: the hooks, for the functions that plugins name.
        args: the positional arguments of an example call; None if there is no example.
        kwargs: its arguments by name; None if there is no example.
        values: see :data:`Values`.
        modes: see :data:`Modes`.
    """

    module_index: ModuleIndex
    keys: dict[int, str]
    memory: Memory
    hooks: Hooks
    args: Sequence[Any] | None
    kwargs: Mapping[str, Any] | None
    values: Values
    modes: Modes

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self.module_index.root.module

    @property
    def has_example(self) -> bool:
        """Return whether there are example inputs."""
        return self.args is not None or self.kwargs is not None

    @functools.cached_property
    def functions(self) -> Functions:
        """The functions that may become nodes."""
        return Functions(self.hooks.named_functions())


class Capturer(ABC):
    """The answer of the hook ``capture``: it captures one model."""

    @abstractmethod
    def tracer(self) -> Tracer:
        """A new tracer, for one run of the model."""

    def faults(self) -> list[Unsupported]:
        """The errors that the original model raises by itself on the example inputs."""
        return []

    def finish(self) -> None:  # noqa: B027 most have nothing to release
        """Release what outlives the runs. It is called once, after an error too."""
