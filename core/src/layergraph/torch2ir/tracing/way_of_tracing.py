"""The abstract methods that each way of tracing (on symbols, on tensors) implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from layergraph.ir import Value
from layergraph.torch2ir.indexing.module_index import ModuleInfo
from layergraph.torch2ir.tracing.module_call import Trace
from layergraph.torch2ir.tracing.patches import Patch


class WayOfTracing(ABC):
    """The methods that :class:`Tracer` calls and one way of tracing implements."""

    hint: ClassVar[str]
    """The remedy that error messages name when this way of tracing fails."""
    readable: ClassVar[frozenset[type]] = frozenset()
    """Types whose values :meth:`read` handles before they count as literals."""

    @abstractmethod
    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments for the call of the model; fill in ``parameters``."""

    @abstractmethod
    def watching(self) -> AbstractContextManager[object]:
        """Return the context in which calls of torch functions are recorded."""

    @abstractmethod
    def patches(self) -> Iterator[Patch]:
        """Yield the patches that are active while the model runs."""

    @abstractmethod
    def leaf(
        self, module_info: ModuleInfo, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """Record the call of a leaf, and return its result."""

    @abstractmethod
    def read(self, value: Any) -> Value:
        """Return the graph value of a value that the model computes, or of a tensor of its state.

        Raises:
            UnknownValueError: the value is neither.
        """

    @abstractmethod
    def renamed(self, result: Any) -> Any:
        """Return the result of a module, with an alias for each argument that it returns unchanged.

        So a reader of the result depends on the module call, even if the module is an identity.
        """

    @abstractmethod
    def passed(self, args: Any, kwargs: Any) -> Any:
        """Return the arguments, with new graph values in place of the tensors of the caller."""

    @abstractmethod
    def border(self, value: Any) -> Value:
        """Return an argument or a result of a module as a literal."""

    @abstractmethod
    def decided(self, name: str, args: tuple[Value, ...], result: object) -> object:
        """Record that the model may branch on a result; return the object to pass to the model."""

    @abstractmethod
    def device_type(self, kind: str) -> Value:
        """Return the graph value of a device type, such as ``"cuda"``."""

    @abstractmethod
    def unrecorded(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a function without recording its calls."""

    @abstractmethod
    def scope_patches(self, members: dict[str, Any]) -> Iterator[Patch]:
        """Yield the patches for the globals of code that is about to run."""

    def name_patches(
        self,
        members: dict[str, Any],  # noqa: ARG002 most tracers have none
        names: Collection[str],  # noqa: ARG002
    ) -> Iterator[Patch]:
        """Yield the patches for globals that code names for the first time, before it runs."""
        return iter(())

    @abstractmethod
    def higher_order(
        self, name: str, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record a call of a higher-order function of torch, and return its result."""

    @abstractmethod
    def torch_function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of a function of torch or of a plugin, and return its result."""

    def follow(self, _trace: Trace) -> None:  # noqa: B027 most tracers hold one way
        """Take the way of an earlier run, if a graph holds the others."""
