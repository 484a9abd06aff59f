"""The methods that a way of tracing, on symbols or on tensors, defines for itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from layergraph.ir import Value
from layergraph.torch2ir.indexing.module_index import ModuleInfo
from layergraph.torch2ir.tracing.patches import Patch


class WayOfTracing(ABC):
    """The interface between the common tracer and one way of tracing."""

    hint: ClassVar[str]
    """The advice where this way of tracing fails."""
    readable: ClassVar[frozenset[type]] = frozenset()
    """Types of values that :meth:`read` is asked for, before they are taken to be plain."""

    @abstractmethod
    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments for the call of the model; fill in ``parameters``."""

    @abstractmethod
    def watching(self) -> AbstractContextManager[object]:
        """The context in which the functions of torch are recorded."""

    @abstractmethod
    def patches(self) -> Iterator[Patch]:
        """Yield the patches for the time that the model runs."""

    @abstractmethod
    def leaf(
        self, module_info: ModuleInfo, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> object:
        """Record the call of a leaf, and give its result."""

    @abstractmethod
    def read(self, value: Any) -> Value:
        """The form of a value of the model, or of a tensor of its state.

        Raises:
            UnknownValueError: it is neither.
        """

    @abstractmethod
    def renamed(self, result: Any) -> Any:
        """Return the result of a module, with values of its own where it is an argument.

        Then who reads the result is seen to read the module's, even that of one that does nothing.
        """

    @abstractmethod
    def passed(self, args: Any, kwargs: Any) -> Any:
        """Arguments in which tensors of the caller have become values that are passed in."""

    @abstractmethod
    def border(self, value: Any) -> Value:
        """The plain form of what a module is given or returns."""

    @abstractmethod
    def decided(self, name: str, args: tuple[Value, ...], result: object) -> object:
        """Note that the model may decide by a function's result; return what it is to get."""

    @abstractmethod
    def device_type(self, kind: str) -> Value:
        """The form of a type of device."""

    @abstractmethod
    def unrecorded(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call something of which nothing is recorded."""

    @abstractmethod
    def scope_patches(self, members: dict[str, Any]) -> Iterator[Patch]:
        """The patches of the globals of code that is about to run."""

    @abstractmethod
    def higher_order(
        self, name: str, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record a call of a function of torch that takes functions, and give its result.

        Args:
            name: the name of a node for it.
            original: the function.
            args: its arguments.
            kwargs: those by name.
        """

    @abstractmethod
    def torch_function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of a function of torch, or of a plugin."""
