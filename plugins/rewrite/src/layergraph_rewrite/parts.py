"""Parts of tied tensors: an IR states them once, but an edit may untie the tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from layergraph.ir import TensorSpec

if TYPE_CHECKING:
    from layergraph_rewrite.working import WorkingLayer


def spread_parts(
    layers: Iterable[WorkingLayer], homes: Mapping[str, tuple[WorkingLayer, str]]
) -> None:
    """Copy the parts of each tensor to the specs of the tensors tied to it.

    Args:
        layers: the layers that have tied tensors.
        homes: by the key of a tensor, its layer and its name there.
    """
    for layer in layers:
        for name, spec in layer.tensors.items():
            if spec.tied is not None:
                home, tensor = homes[spec.tied]
                copy_parts(home, tensor, layer, name)


def copy_parts(source: WorkingLayer, name: str, target: WorkingLayer, tensor: str) -> None:
    """Copy the parts of one tensor's spec to another's."""
    said = source.tensors.get(name, _UNSAID).packed
    spec = target.tensors.get(tensor, _UNSAID)
    if said != spec.packed:
        packed = None if said is None else said.copy()
        target.tensors = {**target.tensors, tensor: replace(spec, packed=packed)}


def tied(spec: TensorSpec, key: str | None) -> TensorSpec:
    """Return the spec of a tensor with a tie to a key, or without one."""
    packed = spec.packed if key is None else None
    if (spec.tied, spec.packed) == (key, packed):
        return spec
    return replace(spec, tied=key, packed=packed)


_UNSAID = TensorSpec()
