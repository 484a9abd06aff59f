"""Models of primitive layers that are equivalent to a leaf of torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn


class NotOpenedError(Exception):
    """No model of primitive layers is equivalent to a call of a leaf, with the reason."""


class Opened(nn.Module):
    """A model of primitive layers for calls of a leaf with the same arguments.

    Attributes:
        compute: computes the result from tensors by name.
        inputs: the names of the tensor arguments of the calls.
        origins: for a key of this model, the key of the leaf and the rows of it; None for all rows.
            A missing key is the same in the leaf.
    """

    compute: Callable[..., Any]

    def __init__(self, inputs: Sequence[str]) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        self.origins: dict[str, tuple[str, slice | None]] = {}

    def origin(self, key: str) -> tuple[str, slice | None]:
        """Return the key of the leaf, and its rows, for a key of this model."""
        return self.origins.get(key, (key, None))

    def note_origins(self, path: str, inner: Opened) -> None:
        """Record the origins of an opened leaf inside, at a path."""
        self.origins |= {
            f"{path}.{key}": (f"{path}.{old}", rows) for key, (old, rows) in inner.origins.items()
        }


def with_inputs(cls: type[Opened], names: Sequence[str]) -> Any:
    """Return a subclass whose ``forward`` has exactly these parameters."""

    def forward(self: Opened, *values: Any) -> Any:
        return self.compute(**dict(zip(names, values, strict=True)))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in ("self", *names)]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return type(cls.__name__, (cls,), {"forward": forward})


def stated(cls: type[nn.Module], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a layer, with the defaults of its constructor."""
    parameters = inspect.signature(cls).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    return {**defaults, **attributes}


def only(constants: Mapping[str, Any], *names: str) -> None:
    """Refuse other arguments than the named ones, unless they are None or False."""
    for name, value in constants.items():
        if name not in names and value not in (None, False):
            raise NotOpenedError(f"it is called with {name}={value!r}")


def masked(scores: torch.Tensor, mask: torch.Tensor, kind: str) -> torch.Tensor:
    """Return scores after a mask: of bool, True leaves out; of numbers, they are added."""
    return scores.masked_fill(mask, float("-inf")) if kind == "bool" else scores + mask
