"""What is tested: layers, and how they are made and varied."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin


@dataclass(frozen=True, slots=True)
class Case:
    """One way of making a layer.

    Attributes:
        make: makes the layer, a new one at each call.
        inputs: the arguments of a call: sizes of float tensors, which are drawn anew for each run,
            and tensors, which are given as they are.
        kind: the type of the layer's implementation; None: the name of its class in lower case.
        kwargs: the arguments of a call by name, which are given as they are.
        rebuilt: the class that comes back, where a plugin replaces the layer by one of its own that
            computes the same; None: the class of the layer.
        skip: why the case is skipped, as :func:`layergraph.torch_versions.missing` says it of a
            feature of torch; None: it is not.
    """

    make: Callable[[], nn.Module]
    inputs: Sequence[torch.Tensor | tuple[int, ...]]
    kind: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    rebuilt: type[nn.Module] | None = None
    skip: str | None = None

    def kind_of(self, module: nn.Module) -> str:
        """The type that the implementation of a module of this case is to have."""
        return type(module).__name__.lower() if self.kind is None else self.kind

    def scrambled(self) -> nn.Module:
        """A new layer, with weights that no constructor makes."""
        module = self.make()
        # What a constructor makes anyway (ones, zeros) would come back even if it were not kept.
        with torch.no_grad():
            for tensor in module.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(torch.rand_like(tensor))
        return module


VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "as made": lambda module: module,
    "in float64": lambda module: module.double(),
    "frozen": lambda module: module.requires_grad_(False),
    "in eval mode": lambda module: module.eval(),
}


def layers_of(module: ModuleType) -> set[type[nn.Module]]:
    """Return the layers that a Python module lists in ``__all__``.

    Lazy layers are left out, because they change their class in their first call.

    Args:
        module: a module of Python.

    Example:
        >>> import torch
        >>> from layergraph_tools.testing import layers_of
        >>> sorted(cls.__name__ for cls in layers_of(torch.nn.modules.flatten))
        ['Flatten', 'Unflatten']
    """
    listed = [getattr(module, name) for name in module.__all__]
    layers = [each for each in listed if inspect.isclass(each) and issubclass(each, nn.Module)]
    return {cls for cls in layers if not issubclass(cls, LazyModuleMixin)}


def expect(condition: bool, message: str) -> None:
    """Raise what a failed check raises, unless a condition holds."""
    if not condition:
        raise AssertionError(message)
