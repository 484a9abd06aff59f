"""The argument and the answer of the hook ``capture``: a request, and a capturer."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from torch import nn

from layergraph.errors import CaptureError, Unsupported, brief
from layergraph.functions.names import Functions
from layergraph.ir import Ir
from layergraph.tensors.state import Memory

if TYPE_CHECKING:
    from layergraph.plugins import Hooks
    from layergraph.torch2ir.indexing.module_index import ModuleIndex
    from layergraph.torch2ir.tracing.module_call import Trace
    from layergraph.torch2ir.tracing.tracer import Tracer

Values = Literal["both", "assume", "refuse"]
"""The treatment of code that depends on a number in a tensor.

``both``: capture both ways of a decision, and guard other numbers. ``assume``: guard all decisions
and numbers, so that the IR holds the way of the example. ``refuse``: refuse the model.
"""

Modes = Literal["both", "own"]
"""The modes to capture if code depends on the mode: both, or the one that the model is in."""


Example: TypeAlias = "tuple[Sequence[Any] | None, Mapping[str, Any] | None]"
"""The positional and the keyword arguments of a call."""

Run: TypeAlias = "Callable[[Callable[[], Tracer]], Trace]"
"""A function that takes a factory of tracers, runs a new tracer, and returns the record."""


@dataclass(frozen=True, eq=False)
class CaptureRequest:
    """A model to capture, with all that a tracer needs.

    Attributes:
        module_index: the modules of the model, each with the answer of the handlers.
        keys: the state-dict key of each of its tensors, by ``id``.
        memory: the memory that these tensors occupy.
        hooks: the hooks of the converter.
        examples: the example calls; none if the model is traced on symbols.
        values: see :data:`Values`.
        modes: see :data:`Modes`.
    """

    module_index: ModuleIndex
    keys: dict[int, str]
    memory: Memory
    hooks: Hooks
    examples: Sequence[Example]
    values: Values
    modes: Modes

    @property
    def model(self) -> nn.Module:
        """Return the model."""
        return self.module_index.root.module

    @property
    def has_example(self) -> bool:
        """Return whether there are example inputs."""
        return bool(self.examples)

    @functools.cached_property
    def functions(self) -> Functions:
        """Return the functions that may become nodes."""
        return Functions(self.hooks.named_functions(), self.hooks.factories())


def example_calls(
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    examples: Sequence[Example] | None,
) -> Sequence[Example]:
    """Return the example calls of a conversion; an empty list to trace on symbols.

    Args:
        args: the positional arguments of one call.
        kwargs: its arguments by name.
        examples: several calls instead.

    Raises:
        CaptureError: both forms are given, or ``examples`` are no pairs.
    """
    if examples is None:
        return [] if args is None and kwargs is None else [(args, kwargs)]
    if args is not None or kwargs is not None:
        raise CaptureError("there are examples besides args and kwargs; give all calls as examples")
    if not isinstance(examples, list | tuple) or not examples:
        raise CaptureError(
            f"examples is {brief(examples)}; give a list of calls, each as (args, kwargs)"
        )
    for index, each in enumerate(examples):
        if not isinstance(each, list | tuple) or len(each) != 2:
            raise CaptureError(
                f"examples[{index}] is a {type(each).__name__}; give a pair of a tuple of "
                "positional arguments and a dict of arguments by name, as in ((x,), {})"
            )
    return examples


class Capturer(ABC):
    """The answer of the hook ``capture``: an object that captures one model."""

    @abstractmethod
    def tracer(self) -> Tracer:
        """Return a new tracer, for one run of the model."""

    def complete(self, trace: Trace, run: Run) -> Trace:  # noqa: ARG002 most need one run
        """Return the record of all ways; by default, the record of the first run.

        Args:
            trace: the record of the first run.
            run: takes a factory of tracers, runs a new tracer, and returns its record.
        """
        return trace

    def confirms(self, ir: Ir) -> bool:  # noqa: ARG002 most have nothing to add
        """Return whether an IR is right. If not, the model is captured again, in another way.

        Args:
            ir: the IR that the records have become.
        """
        return True

    def faults(self) -> list[Unsupported]:
        """Return the errors that the original model raises on the example inputs."""
        return []

    def retries(self) -> bool:
        """Return whether to retry a failed capture once, with other settings of the capturer."""
        return False

    def finish(self) -> None:  # noqa: B027 most have nothing to release
        """Release resources that outlive the runs. It is called once, also after an error."""
