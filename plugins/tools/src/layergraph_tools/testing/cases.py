"""The cases of a layer's tests: how to make the layer, and variants of it."""

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
        make: returns a new layer at each call.
        inputs: the positional arguments of a call: the shape of a float tensor, whose values are
            random for each run, or a tensor, which is passed as it is.
        kind: the type of the layer's implementation; None: the name of its class in lower case.
        kwargs: the keyword arguments of a call, which are passed as they are.
        rebuilt: the class of the rebuilt layer, if a plugin replaces the layer by its own class
            that computes the same; None: the class of the layer.
        skip: the reason to skip the case, such as the text that
            :func:`layergraph.torch_versions.missing` returns for a feature of torch; None: run it.
    """

    make: Callable[[], nn.Module]
    inputs: Sequence[torch.Tensor | tuple[int, ...]]
    kind: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    rebuilt: type[nn.Module] | None = None
    skip: str | None = None

    def kind_of(self, module: nn.Module) -> str:
        """Return the expected type of the implementation of a module of this case."""
        return type(module).__name__.lower() if self.kind is None else self.kind

    def scrambled(self) -> nn.Module:
        """Return a new layer with random weights, which no constructor makes."""
        module = self.make()
        # A constructor makes ones and zeros anyway, so a test with these would not see their loss.
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
    """Raise an AssertionError with a message unless a condition holds."""
    if not condition:
        raise AssertionError(message)
