"""The part of a distributed tensor that this process holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate, Shard

from layergraph.errors import StateError
from layergraph_files.regions import Region, Runs, region_shape, whole


def local_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a tensor that is in this process; a plain tensor is its own part."""
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    with torch.no_grad():
        return tensor.to_local()


def placed(tensor: torch.Tensor) -> object:
    """Return the mesh and placements of a tensor, to compare these; None for a plain tensor."""
    return (tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else None


def region_of(key: str, tensor: torch.Tensor) -> Region | None:
    """Return the indices of the elements of a tensor that this process holds.

    Args:
        key: the name of the tensor, for errors.
        tensor: a plain tensor or a DTensor.

    Returns:
        The region, in the order of the local tensor; None if this process is not in the mesh of the
        tensor.

    Raises:
        StateError: a placement has no region, or the local tensor has another shape than it.
    """
    region = list(whole(tensor.shape))
    if not isinstance(tensor, DTensor):
        return region
    coordinate = tensor.device_mesh.get_coordinate()
    if coordinate is None:
        return None
    for axis, placement in enumerate(tensor.placements):
        if isinstance(placement, Replicate):
            continue
        dim, pieces = _dim_of(placement), tensor.device_mesh.size(axis)
        if dim is None:
            raise StateError(
                f"{key!r} has the placement {placement}, whose local values are not a part of the "
                "whole tensor; redistribute it to Shard or Replicate"
            )
        # If FSDP shards a tensor that is sharded already, FSDP cuts each of the pieces. So cut the
        # tensor into these pieces first.
        first = getattr(placement, "split_factor", 1)
        runs = region[dim]
        region[dim] = [
            run
            for at in range(first)
            for run in _piece(_piece(runs, first, at), pieces, coordinate[axis])
        ]
    held = tuple(local_of(tensor).shape)
    if region_shape(region) != held:
        raise StateError(
            f"{key!r} has the placements {tensor.placements}, by which this process holds a part "
            f"of shape {region_shape(region)}, but it holds {held}; shard it evenly"
        )
    return [_joined(runs) for runs in region]


def _dim_of(placement: Any) -> int | None:
    """Return the dimension that a placement shards; None for other kinds of placement."""
    is_shard = isinstance(placement, Shard) or hasattr(placement, "split_factor")
    return int(placement.dim) if is_shard else None


def _piece(runs: Runs, pieces: int, at: int) -> Runs:
    """Return one of the pieces into which :func:`torch.chunk` would cut a list of indices."""
    step = -(-sum([stop - start for start, stop in runs]) // pieces)
    skipped, wanted = at * step, step
    found = []
    for start, stop in runs:
        first = start + min(skipped, stop - start)
        last = first + min(wanted, stop - first)
        skipped -= first - start
        wanted -= last - first
        if first < last:
            found.append((first, last))
    return found


def _joined(runs: Runs) -> Runs:
    """Join adjacent ranges of indices."""
    joined: Runs = []
    for start, stop in runs:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


def take(tensor: torch.Tensor, region: Region) -> torch.Tensor:
    """Return the part of a plain tensor that a region describes."""
    for dim, runs in enumerate(region):
        if runs != [(0, tensor.shape[dim])]:
            parts = [tensor.narrow(dim, start, stop - start) for start, stop in runs]
            tensor = torch.cat(parts, dim) if parts else tensor.narrow(dim, 0, 0)
    return tensor


def ranks_of(tensor: torch.Tensor) -> frozenset[int] | None:
    """Return the ranks among which a tensor is distributed; None for a plain tensor."""
    return (
        frozenset(tensor.device_mesh.mesh.flatten().tolist())
        if isinstance(tensor, DTensor)
        else None
    )


def is_first_copy(tensor: torch.Tensor) -> bool:
    """Return whether this process has the smallest coordinate of those that hold the same part."""
    if not isinstance(tensor, DTensor):
        return True
    coordinate: Sequence[int] | None = tensor.device_mesh.get_coordinate()
    return coordinate is not None and not any(
        at
        for at, placement in zip(coordinate, tensor.placements, strict=True)
        if isinstance(placement, Replicate)
    )
