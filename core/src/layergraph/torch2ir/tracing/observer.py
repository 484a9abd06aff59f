"""The interface of the tracer for patches that watch code other than calls of torch functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from layergraph.functions.names import Functions
from layergraph.ir import Value
from layergraph.torch2ir.indexing.module_index import ModuleIndex
from layergraph.torch2ir.state.global_state import GlobalState
from layergraph.torch2ir.tracing.recorder import Recorder


class Observer(Protocol):
    """Records what the model's code does.

    Attributes:
        module_index: the model.
        functions: the functions that may become nodes.
        state: the global state of torch during the run.
        generators: the states of the generators of Python and numpy, before the model runs.
        recorder: the recorder of the calls.
        readable: the types of the values that stand for values of the graph.
    """

    module_index: ModuleIndex
    functions: Functions
    state: GlobalState
    generators: tuple[Any, ...]
    recorder: Recorder
    readable: ClassVar[frozenset[type]]

    def is_recording(self) -> bool:
        """Return whether the tracer records calls now."""

    def refuse(self, reason: str) -> None:
        """Record a refusal."""

    def decided(self, name: str, args: tuple[Value, ...], result: object) -> object:
        """Record that the model may branch on a result; return the object to pass to the model."""

    def environment(self, name: str, value: str | None) -> None:
        """Record that the model may branch on an environment variable."""

    def device_type(self, kind: str) -> Value:
        """Return the graph value of a device type, such as ``"cuda"``."""

    def unrecorded(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a function without recording its calls."""
