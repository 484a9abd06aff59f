"""One class of layers, there and back."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from layergraph.declining import decline
from layergraph.errors import BuildError, PluginError
from layergraph.ir import Implementation, Value
from layergraph.ir.values import copied
from layergraph.layers.reference import NOT_COMPARED, Reference
from layergraph.layers.signatures import parameters_of, type_of
from layergraph.symbols import UnknownValueError, lower_plain

Reader = Callable[[nn.Module], Value]
Writer = Callable[[Any], Any]


class Layer:
    """How one class of layers becomes an implementation, and back.

    The attributes are the arguments of the constructor, but for ``device`` and ``dtype``: those
    without a default always, the others where they differ from it.

    Args:
        cls: the class: exactly this one, since a subclass may compute something else.
        type: the type of the implementation; None: the name of the class in lower case, as in
            ``nn.BatchNorm2d`` and ``batchnorm2d``.
        always: arguments that are said even where they are the default.
        never: arguments that cannot be read off a module, and need not be.
        readers: how to read an argument off a module, where it is not the attribute of its name.
            Of a parameter or buffer only the presence counts: ``bias`` is True if there is one.
        writers: how to make what the constructor takes from the attribute, where that is not the
            attribute itself.
        derived: attributes of the module that follow from its tensors, and are not compared.

    Raises:
        PluginError: without a type, it would have the one of a layer of torch; or the class is no
            module.
    """

    def __init__(
        self,
        cls: type[nn.Module],
        type: str | None = None,  # noqa: A002 -- what it is called in the IR
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
        self._references: dict[str, Reference | None] = {}

    def check(self) -> None:
        """See whether the class takes the arguments that the row names.

        Raises:
            PluginError: it does not, or what it takes cannot be known.
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
    def _unsaid(self) -> dict[str, str | None]:
        """The plain values that go without saying, as text: in it, 1 is not True nor 0.0 -0.0."""
        return {
            name: None if name in self._always else repr(parameter.default)
            for name, parameter in parameters_of(self.cls).items()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and name not in self._never
        }

    def to_ir(self, module: nn.Module) -> Implementation | None:
        """The implementation of a module; None if it is not exactly what its arguments say.

        A module that was changed after it was made, by a pruned weight, a hook or an attribute set
        by hand, on it or on a module inside, is not the layer that its arguments describe.
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
        if not reference.is_like(module):
            return decline("it was changed after it was made, and is not what its arguments say")
        return Implementation(self.type, data)

    def read(self, module: nn.Module) -> dict[str, Value] | None:
        """The arguments that a module of the class seems to have been made with.

        None if one of them cannot be read, or is no plain value.
        """
        data: dict[str, Value] = {}
        try:
            for name, unsaid in self._unsaid.items():
                value = lower_plain(self._read(module, name))
                if unsaid is None or repr(value) != unsaid:
                    data[name] = value
        except (AttributeError, UnknownValueError):
            return decline(f"its argument {name!r} cannot be read off it, or is no plain value")
        return data

    def to_torch(self, implementation: Implementation) -> nn.Module:
        """The module that an implementation describes.

        Raises:
            BuildError: an attribute is none of the layer's, or there is a graph.
        """
        if implementation.nodes:
            raise BuildError(
                f"implementation {implementation.name!r}: a layer of type {self.type!r} has no "
                "graph; give it the type 'module', which runs any graph"
            )
        data = implementation.attributes
        for name in data:
            if name not in self._unsaid:
                raise BuildError(
                    f"implementation {implementation.name!r}: a layer of type {self.type!r} has no "
                    f"attribute {name!r}; it has {', '.join(self._unsaid) or 'none'}"
                    f"{_here(self.cls)}"
                )
        if hasattr(self.cls, "__deprecated__"):  # which whoever made the first one was told
            with _quiet():
                return self._make(data)
        return self._make(data)

    def _make(self, data: Mapping[str, Value]) -> nn.Module:
        # Copies: a list that a module keeps is its own, and not the implementation's.
        return self.cls(
            **{
                name: self._writers.get(name, _as_it_is)(copied(value))
                for name, value in data.items()
            }
        )

    def _read(self, module: nn.Module, name: str) -> Any:
        if name in self._readers:
            return self._readers[name](module)
        value = getattr(module, name)
        if name in module._parameters or name in module._buffers:
            return value is not None
        return value

    def _reference(self, data: Mapping[str, Value]) -> Reference | None:
        try:
            with _quiet(), torch.random.fork_rng(devices=[]), torch.device("meta"):
                return Reference(self._make(data), self._not_compared)
        except Exception:  # its own attributes are none that it can be made from
            return None


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _here(cls: type[nn.Module]) -> str:
    # Releases of torch differ in what their layers take.
    is_of_torch = cls.__module__.startswith("torch.")
    return f" in torch {torch.__version__}" if is_of_torch else ""


def _as_it_is(value: Value) -> Any:
    return value
