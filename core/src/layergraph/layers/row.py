"""A row of the hook ``layers``: the conversions of one class of layers."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from layergraph.errors import BuildError, PluginError
from layergraph.hook_types.declining import decline
from layergraph.ir import Implementation, Value
from layergraph.ir.values import copied
from layergraph.layers.pristine import NOT_COMPARED, PristineLayer
from layergraph.layers.signatures import parameters_of, type_of
from layergraph.literals import UnknownValueError, to_plain_literal

Reader = Callable[[nn.Module], Value]
Writer = Callable[[Any], Any]


class Layer:
    """The conversions of one class of layers, from its constructor arguments.

    The attributes of the implementation are the arguments of the constructor, without ``device``
    and ``dtype``. An argument that equals its default is left out.

    Args:
        cls: the class. A subclass needs its own row, because it may override the computation.
        type: the type of the implementation; None: the name of the class in lower case, such as
            ``batchnorm2d`` for ``nn.BatchNorm2d``.
        always: arguments to keep even if they equal their defaults.
        never: arguments to leave out, because no attribute of the module holds them.
        readers: by argument, a function that reads it from a module. Without one, the row reads the
            attribute of the same name. If that is a parameter or buffer, the argument is a bool:
            ``bias=True`` if the module has a bias.
        writers: by argument, a function that turns the attribute of the implementation into the
            value that the constructor takes.
        derived: attributes of the module that follow from its tensors, and are not compared.

    Raises:
        PluginError: the class is not a module, or it needs a ``type``, because a layer of torch has
            the same name.

    Example:
        >>> import torch
        >>> from layergraph.layers import Layer
        >>> row = Layer(torch.nn.Linear, always=["bias"])
        >>> row.to_ir(torch.nn.Linear(2, 3)).attributes
        {'in_features': 2, 'out_features': 3, 'bias': True}
    """

    def __init__(
        self,
        cls: type[nn.Module],
        type: str | None = None,  # noqa: A002 -- as in the IR
        always: Collection[str] = (),
        never: Collection[str] = (),
        readers: Mapping[str, Reader] | None = None,
        writers: Mapping[str, Writer] | None = None,
        derived: Collection[str] = (),
    ) -> None:
        self.cls = cls
        self.type = type_of(cls) if type is None else type
        self._readers = readers or {}
        self._writers = writers or {}
        self._always = frozenset(always)
        self._never = frozenset({"device", "dtype", *never})
        self._not_compared = NOT_COMPARED | set(derived)
        self._references: dict[str, PristineLayer | None] = {}

    def check(self) -> None:
        """Check that the class takes the arguments that the row names.

        Raises:
            PluginError: the class does not take them, or Python cannot read its signature.
        """
        parameters = parameters_of(self.cls)
        unknown = {*self._always, *self._readers, *self._writers} - parameters.keys()
        if unknown:
            raise PluginError(
                f"{self.cls.__qualname__} takes no {', '.join(sorted(unknown))}; it takes "
                f"{', '.join(parameters) or 'nothing'}"
            )
        for parameter in parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
                raise PluginError(
                    f"{self.cls.__qualname__} takes {str(parameter)!r}, which has no name that an "
                    "attribute could have; write handlers for it"
                )

    @functools.cached_property
    def _defaults(self) -> dict[str, str | None]:
        """Return the defaults to leave out, by argument; None for an argument to keep always.

        Defaults are ``repr`` texts, in which 1 differs from True, and 0.0 from -0.0.
        """
        return {
            name: None if name in self._always else repr(parameter.default)
            for name, parameter in parameters_of(self.cls).items()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and name not in self._never
        }

    def to_ir(self, module: nn.Module) -> Implementation | None:
        """Return the implementation of a module; None if its arguments do not describe it.

        They do not describe a module that was changed after its construction: a weight was pruned,
        a hook was added, or an attribute was set by hand, on the module or on one inside it.

        Args:
            module: an instance of exactly the class of the row.

        Returns:
            An implementation with the row's type and the arguments, or None.
        """
        data = self.read(module)
        if data is None:
            return None
        key = repr(data)
        if key not in self._references:
            self._references[key] = self._reference(data)
        reference = self._references[key]
        if reference is None:
            return decline(f"{self.cls.__qualname__} cannot be made from what it says: {data}")
        if not reference.matches(module):
            return decline(
                "it was changed after its construction, and its arguments do not describe it"
            )
        return Implementation(self.type, data)

    def read(self, module: nn.Module) -> dict[str, Value] | None:
        """Return the constructor arguments of a module, read from its attributes.

        Args:
            module: an instance of exactly the class of the row.

        Returns:
            The arguments by name, without defaults; None if an argument cannot be read, or is not a
            plain value.
        """
        data: dict[str, Value] = {}
        try:
            for name, default in self._defaults.items():
                value = to_plain_literal(self._read(module, name))
                if default is None or repr(value) != default:
                    data[name] = value
        except (AttributeError, UnknownValueError):
            return decline(f"its argument {name!r} cannot be read off it, or is no plain value")
        return data

    def to_torch(self, implementation: Implementation) -> nn.Module:
        """Make the module that an implementation describes.

        Args:
            implementation: its attributes are the arguments of the constructor.

        Returns:
            A new module of the row's class.

        Raises:
            BuildError: the class takes no argument of an attribute's name, or the implementation
                has a graph.
        """
        if implementation.nodes:
            raise BuildError(
                f"implementation {implementation.name!r}: a layer of type {self.type!r} has no "
                "graph; give it the type 'module', which runs any graph"
            )
        arguments = self.arguments(implementation)
        if hasattr(self.cls, "__deprecated__"):  # torch warned when the original was made
            with _quiet():
                return self.cls(**arguments)
        return self.cls(**arguments)

    def arguments(self, implementation: Implementation) -> dict[str, Any]:
        """Return the constructor arguments for an implementation.

        Args:
            implementation: its attributes are the arguments of the constructor.

        Returns:
            The values that the constructor takes, by name, after the writers.

        Raises:
            BuildError: the class takes no argument of an attribute's name.

        Example:
            >>> import torch
            >>> from layergraph.ir import Implementation
            >>> from layergraph.layers import Layer
            >>> Layer(torch.nn.ReLU).arguments(Implementation("relu", {"inplace": True}))
            {'inplace': True}
        """
        data = implementation.attributes
        for name in data:
            if name not in self._defaults:
                raise BuildError(
                    f"implementation {implementation.name!r}: a layer of type {self.type!r} has no "
                    f"attribute {name!r}; it has {', '.join(self._defaults) or 'none'}"
                    f"{_here(self.cls)}"
                )
        return self._written(data)

    def _written(self, data: Mapping[str, Value]) -> dict[str, Any]:
        # Copies, so that a module that keeps a list does not share it with the implementation.
        return {
            name: self._writers.get(name, _as_it_is)(copied(value)) for name, value in data.items()
        }

    def _read(self, module: nn.Module, name: str) -> Any:
        if name in self._readers:
            return self._readers[name](module)
        value = getattr(module, name)
        if name in module._parameters or name in module._buffers:
            return value is not None
        return value

    def _reference(self, data: Mapping[str, Value]) -> PristineLayer | None:
        # Some constructors read numbers, which tensors on the meta device do not have.
        for device in ("meta", "cpu"):
            with (
                suppress(Exception),  # the constructor does not take the values of the attributes
                _quiet(),
                torch.random.fork_rng(devices=[]),
                torch.device(device),
            ):
                return PristineLayer(self.cls(**self._written(data)), self._not_compared)
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _here(cls: type[nn.Module]) -> str:
    # Releases of torch differ in the arguments of their layers.
    is_of_torch = cls.__module__.startswith("torch.")
    return f" in torch {torch.__version__}" if is_of_torch else ""


def _as_it_is(value: Value) -> Any:
    return value
