"""The tracer, as those see it that watch a model's code besides its calls of functions of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from layergraph.functions.names import Functions
from layergraph.ir import Value
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.state.global_state import GlobalState


class Observer(Protocol):
    """Takes note of what the model's code does.

    Attributes:
        module_index: the model.
        functions: the functions that may become nodes.
        state: the state of torch around what is recorded.
        generators: the states of the generators of Python and numpy, before the model runs.
    """

    module_index: ModuleIndex
    functions: Functions
    state: GlobalState
    generators: tuple[Any, ...]

    def is_recording(self) -> bool:
        """Return whether what happens now is to be recorded."""

    def refuse(self, reason: str) -> None:
        """Note that something cannot be carried over."""

    def decided(self, name: str, args: tuple[Value, ...], result: object) -> object:
        """Note that the model may decide by a function's result; return what it is to get."""

    def environment(self, name: str, value: str | None) -> None:
        """Note that the model may decide by a variable of the environment."""

    def device_type(self, kind: str) -> Value:
        """The form of a type of device."""

    def unrecorded(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call something of which nothing is recorded."""
