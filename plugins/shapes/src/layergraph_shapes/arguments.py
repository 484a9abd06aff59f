"""The arguments of a walk: fake tensors in place of the caller's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from layergraph.errors import ArgumentError, brief
from layergraph.ir import Graph
from layergraph_shapes.described import TensorMeta
from layergraph_shapes.sizes import Sizes, check_name

_FORM = "give the arguments as a tuple, such as (x,), or (TensorMeta((2, 3)),)"


_COMPARE_MASKS = nn.TransformerEncoder, nn.TransformerDecoder, nn.Transformer


def without_comparison(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the keyword arguments of a call, with ``is_causal`` set for transformer layers.

    Otherwise such a layer compares the numbers of its mask with the causal mask, to choose a
    kernel. No shape depends on the answer.
    """
    if not isinstance(module, _COMPARE_MASKS):
        return dict(kwargs)
    signature = inspect.signature(module.forward)
    given = signature.bind_partial(*args, **kwargs).arguments
    hints = [name for name in signature.parameters if name.endswith("is_causal")]
    return {**dict.fromkeys([name for name in hints if name not in given], False), **kwargs}


class Arguments:
    """Converts the caller's arguments to those of a walk.

    Args:
        sizes: the symbolic sizes; None to replace each name by its number.
        numbers: the number, or the example, for each name.
    """

    def __init__(self, sizes: Sizes | None, numbers: Mapping[str, int]) -> None:
        self._sizes = sizes
        self._numbers = numbers
        self._named: set[str] = set()

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> tuple[Any, Any]:
        """Return the positional arguments, and those by name.

        Call it under the fake mode of the walk.

        Raises:
            ArgumentError: an argument has a wrong form.
        """
        if isinstance(args, torch.Tensor | TensorMeta | str) or not isinstance(args, Sequence):
            raise ArgumentError(f"the arguments of the call are {brief(args)}; {_FORM}")
        if not isinstance(kwargs, Mapping | None):
            raise ArgumentError(f"the arguments by name are {brief(kwargs)}; give a dict")
        by_position = tuple(map(self._top, args))
        by_name = {name: self._top(each) for name, each in (kwargs or {}).items()}
        for name in self._numbers.keys() - self._named:
            raise ArgumentError(f"no input has a size {name!r}; leave it out of sizes")
        return by_position, by_name

    def _top(self, value: Any) -> Any:
        """Return an argument; a tuple of sizes is the shape of a tensor."""
        if type(value) in (tuple, torch.Size) and value and all(map(_is_size, value)):
            return self._tensor(TensorMeta(tuple(value)))
        return self._inside(value)

    def _inside(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return torch.empty(value.shape, dtype=value.dtype)
        if isinstance(value, TensorMeta):
            return self._tensor(value)
        if isinstance(value, dict):
            return {key: self._inside(each) for key, each in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(self._inside, value))
        if type(value) in (tuple, list):
            return type(value)(map(self._inside, value))
        return value

    def _tensor(self, meta: TensorMeta) -> torch.Tensor:
        shape = [self._size(each) for each in meta.shape]
        try:
            return torch.empty(shape, dtype=meta.dtype)
        except (RuntimeError, TypeError) as error:
            raise ArgumentError(f"there is no tensor {meta}; correct it") from error

    def _size(self, size: Any) -> Any:
        if not isinstance(size, str):
            return size
        check_name(size)
        self._named.add(size)
        if self._sizes is not None:
            return self._sizes.named(size)
        if size not in self._numbers:
            raise ArgumentError(
                f"a cost is a number: say how large {size!r} is, as in sizes={{{size!r}: 8}}"
            )
        return self._numbers[size]


def _is_size(value: object) -> bool:
    return type(value) in (int, str)


def by_parameter(
    graph: Graph, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the value of each parameter.

    Raises:
        ArgumentError: there are too many, or too few.
    """
    parameters = graph.parameters()
    found = dict(zip(parameters.values(), args, strict=False))
    twice = found.keys() & kwargs.keys()
    unknown = kwargs.keys() - {*parameters.values()}
    found |= kwargs
    missing = [
        parameter
        for node, parameter in parameters.items()
        if parameter not in found and "default" not in graph.nodes[node].kwargs
    ]
    takes = f"it takes {', '.join(parameters.values()) or 'none'}"
    where = f"the inputs of {name!r}"
    if len(args) > len(parameters):
        raise ArgumentError(f"{where}: {len(args)} were given, but {takes}")
    for wrong, names in (("twice", twice), ("in vain", unknown), ("nowhere", missing)):
        if names:
            raise ArgumentError(f"{where}: {sorted(names)} given {wrong}; {takes}")
    return found
