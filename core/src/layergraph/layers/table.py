"""The rows of one plugin, by class and by type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from layergraph.errors import PluginError
from layergraph.ir import Implementation
from layergraph.layers.row import Layer


class LayerTable:
    """The rows of one plugin, by class and by type.

    Args:
        layers: the rows.

    Raises:
        PluginError: two rows have one class or one type.

    Example:
        >>> import torch
        >>> from layergraph.layers import Layer, LayerTable
        >>> table = LayerTable([Layer(torch.nn.ReLU), Layer(torch.nn.Tanh)])
        >>> table.to_ir(torch.nn.Tanh()).type
        'tanh'
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._by_class: dict[type[nn.Module], Layer] = {}
        self._by_type: dict[str, Layer] = {}
        for layer in layers:
            if layer.cls in self._by_class or layer.type in self._by_type:
                raise PluginError(
                    f"there are two rows for {layer.cls.__qualname__} or for the type "
                    f"{layer.type!r}; keep one"
                )
            self._by_class[layer.cls] = self._by_type[layer.type] = layer

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._by_type.values())

    def find(self, key: type | str) -> Layer | None:
        """Return the row for a class or a type; None if there is none."""
        return self._by_type.get(key) if isinstance(key, str) else self._by_class.get(key)

    def to_ir(self, module: nn.Module) -> Implementation | None:
        """Answer the hook ``torch_to_ir``; None if no row is for exactly the module's class."""
        layer = self._by_class.get(type(module))
        return None if layer is None else layer.to_ir(module)

    def to_torch(self, implementation: Implementation) -> nn.Module | None:
        """Answer the hook ``ir_to_torch``; None if no row is for the implementation's type."""
        layer = self._by_type.get(implementation.type)
        return None if layer is None else layer.to_torch(implementation)
