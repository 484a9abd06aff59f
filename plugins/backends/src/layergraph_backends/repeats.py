"""Calls that are like one before: a composite of the same form, on values described alike."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch

from layergraph.ir import STATE, Implementation, Ir
from layergraph.ir.values import map_leaves
from layergraph_backends.backend import Tensors
from layergraph_backends.plain import UNKNOWN, is_plain
from layergraph_backends.step import Step
from layergraph_shapes import TensorMeta
from layergraph_shapes.forms import Forms


class Repeats:
    """The first call of each kind.

    Args:
        ir: the IR of one mode.
        metas: the description of each value by its path.
        tensors: the tensors of the model by key.
    """

    def __init__(
        self,
        ir: Ir,
        metas: Mapping[tuple[str, ...], Any],
        tensors: Mapping[str, torch.Tensor],
    ) -> None:
        self._ir = ir
        self._metas = metas
        self._tensors = tensors
        self._forms = Forms(ir)
        self._first: dict[Hashable, Step] = {}

    def key(self, step: Step, layer: Implementation) -> Hashable:
        """Return what a call has in common with those that are like it."""
        numbers: dict[int, int] = {}

        def leaf(value: Any) -> Any:
            is_value = value is not UNKNOWN and not is_plain(value)
            return _Number(numbers.setdefault(id(value), len(numbers))) if is_value else value

        values = repr(map_leaves(leaf, (step.args, step.kwargs)))
        metas = repr(map_leaves(_with_stride, (step.meta, step.arg_metas, step.kwarg_metas)))
        return self._forms.of(layer.name), step.node.when is None, values, metas

    def keep(self, key: Hashable, step: Step) -> None:
        """Keep a call for those that are like it."""
        self._first.setdefault(key, step)

    def first(
        self, key: Hashable, step: Step, layer: Implementation
    ) -> tuple[Step, Tensors] | None:
        """Return the first call that is like another one, and the tensors of that other one.

        Args:
            key: what it has in common with those that are like it.
            step: the call.
            layer: the composite.
        """
        first = self._first.get(key)
        if first is None or first.layer is None:
            return None
        names = {first.layer.name: layer.name}
        keys: dict[str, str] = {}
        for pair in self._forms.pairs(first.layer.name, layer.name, lambda each: each):
            one, other = pair.node, pair.other
            metas = (*first.path, *pair.path), (*step.path, *pair.other_path)
            if self._metas.get(metas[0]) != self._metas.get(metas[1]) or one.bodies():
                return None
            if one.is_call:
                names[one.implementation] = other.implementation
            elif one.type == STATE:
                keys[one.implementation] = other.implementation
        return first, self._renamed(names, keys)

    def _renamed(self, names: Mapping[str, str], keys: Mapping[str, str]) -> Tensors:
        def tensor(key: str) -> tuple[str, torch.Tensor]:
            found = keys.get(key) or _with_prefix(key, names)
            return found, self._tensors[found].detach()

        return tensor


def _with_stride(meta: Any) -> Any:
    """Return a description with its strides, on which the meaning of some views depends."""
    return (meta, meta.stride) if isinstance(meta, TensorMeta) else meta


class _Number:
    """The place of a value of the target among those of a call."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __repr__(self) -> str:
        return f"<{self._number}>"


def _with_prefix(key: str, names: Mapping[str, str]) -> str:
    """Return a key with another name of the layer that has the tensor."""
    prefix = key
    while "." in prefix:
        prefix = prefix.rpartition(".")[0]
        if prefix in names:
            return names[prefix] + key[len(prefix) :]
    return key
