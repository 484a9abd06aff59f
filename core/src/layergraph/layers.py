"""Handlers for layers that their constructor arguments describe: one table row each.

A plugin for such layers is a table and two functions::

    TABLE = LayerTable([Layer(nn.Linear, always=["bias"]), Layer(nn.Bilinear, always=["bias"])])

    @hookimpl(trylast=True)
    def torch_to_ir(module):
        return TABLE.to_ir(module)

    @hookimpl(trylast=True)
    def ir_to_torch(implementation):
        return TABLE.to_torch(implementation)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from layergraph.errors import BuildError
from layergraph.ir import Implementation, Value
from layergraph.state import all_tensors
from layergraph.symbols import UnknownValueError, lower_plain

Reader = Callable[[nn.Module], Value]
Writer = Callable[[Any], Any]

# Bookkeeping of nn.Module, in which two modules with the same arguments may differ.
_NOT_COMPARED = frozenset({"training", "_parameters", "_buffers", "_modules"})


class Layer:
    """How one class of layers becomes an implementation, and back.

    The type is the name of the class in lower case, as in ``nn.BatchNorm2d`` and ``batchnorm2d``.
    The attributes are the arguments of the constructor, but for ``device`` and ``dtype``: those
    without a default always, the others where they differ from it.

    Args:
        cls: the class: exactly this one, since a subclass may compute something else.
        always: arguments that are said even where they are the default.
        never: arguments that cannot be read off a module, and need not be.
        readers: how to read an argument off a module, where it is not the attribute of its name.
            Of a parameter or buffer only the presence counts: ``bias`` is True if there is one.
        writers: how to make what the constructor takes from the attribute, where that is not the
            attribute itself.
        derived: attributes of the module that follow from its tensors, and are not compared.
    """

    def __init__(
        self,
        cls: type[nn.Module],
        always: Collection[str] = (),
        never: Collection[str] = (),
        readers: Mapping[str, Reader] | None = None,
        writers: Mapping[str, Writer] | None = None,
        derived: Collection[str] = (),
    ) -> None:
        self.cls = cls
        self.kind = cls.__name__.lower()
        self._always = frozenset(always)
        self._readers = readers or {}
        self._writers = writers or {}
        self._not_compared = _NOT_COMPARED | set(derived)
        self._arguments = {
            name: parameter.default
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and name not in {"device", "dtype", *never}
        }
        self._references: dict[str, nn.Module] = {}

    def to_ir(self, module: nn.Module) -> Implementation | None:
        """The implementation of a module; None if it is not exactly what its arguments say.

        A module that was changed after it was made, by a pruned weight or an attribute set by hand,
        is not the layer that its arguments describe.
        """
        data: dict[str, Value] = {}
        for name, default in self._arguments.items():
            try:
                value = lower_plain(self._read(module, name))
            except UnknownValueError:
                return None
            if name in self._always or type(value) is not type(default) or value != default:
                data[name] = value
        return Implementation(self.kind, data) if self._is_as_made(module, data) else None

    def to_torch(self, implementation: Implementation) -> nn.Module:
        """The module that an implementation describes.

        Raises:
            BuildError: an attribute is none of the layer's, or there is a graph.
        """
        if implementation.nodes:
            raise BuildError(
                f"implementation {implementation.name!r}: a layer of type {self.kind!r} has no "
                "graph; give it the type 'module', which runs any graph"
            )
        for name in implementation.data:
            if name not in self._arguments:
                raise BuildError(
                    f"implementation {implementation.name!r}: a layer of type {self.kind!r} has no "
                    f"attribute {name!r}; it has {', '.join(self._arguments) or 'none'}"
                )
        return self._make(implementation.data)

    def _make(self, data: Mapping[str, Value]) -> nn.Module:
        return self.cls(
            **{name: self._writers.get(name, _as_it_is)(value) for name, value in data.items()}
        )

    def _read(self, module: nn.Module, name: str) -> Any:
        if name in self._readers:
            return self._readers[name](module)
        value = getattr(module, name)
        if name in module._parameters or name in module._buffers:
            return value is not None
        return value

    def _is_as_made(self, module: nn.Module, data: dict[str, Value]) -> bool:
        key = repr(data)
        if key not in self._references:
            try:
                with torch.device("meta"):
                    self._references[key] = self._make(data)
            except Exception:  # its own attributes are none that it can be made from
                return False
        made = self._references[key]
        mine = vars(module)
        return _inside(made) == _inside(module) and all(
            name in self._not_compared or (name in mine and _same(mine[name], value))
            for name, value in vars(made).items()
        )


def _as_it_is(value: Value) -> Any:
    return value


def _inside(module: nn.Module) -> list[tuple[object, ...]]:
    """What a module has inside that its arguments decide: its tensors, and other modules."""

    def is_number(dtype: torch.dtype) -> bool:
        return dtype.is_floating_point or dtype.is_complex

    modules: list[tuple[object, ...]] = [
        (name, type(inner)) for name, inner in module.named_modules(remove_duplicate=False)
    ]
    return modules + [
        (name, tensor.shape, isinstance(tensor, nn.Parameter), persistent, is_number(tensor.dtype))
        for name, tensor, persistent in all_tensors(module)
    ]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return one is other
    return one is other or bool(one == other)


class LayerTable:
    """The rows of one plugin.

    Args:
        layers: no two for the same class or type.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        listed = list(layers)
        self._by_class = {layer.cls: layer for layer in listed}
        self._by_kind = {layer.kind: layer for layer in listed}

    def to_ir(self, module: nn.Module) -> Implementation | None:
        """Answer the hook ``torch_to_ir``: None unless there is a row for the exact class."""
        layer = self._by_class.get(type(module))
        return None if layer is None else layer.to_ir(module)

    def to_torch(self, implementation: Implementation) -> nn.Module | None:
        """Answer the hook ``ir_to_torch``: None unless there is a row for the type."""
        layer = self._by_kind.get(implementation.type)
        return None if layer is None else layer.to_torch(implementation)
