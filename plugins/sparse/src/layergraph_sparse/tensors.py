"""Take the sparse tensors of torch apart into indices and values, and make them again."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from layergraph import TensorKind

Parts = dict[str, torch.Tensor]

_COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}


def kinds() -> list[TensorKind]:
    """Return a kind for each sparse layout of torch."""
    return [
        TensorKind("torch.sparse_coo", _flatten_coordinates, _unflatten_coordinates),
        *[
            TensorKind(
                str(layout),
                partial(_flatten_compressed, layout),
                partial(_unflatten_compressed, layout),
            )
            for layout in _COMPRESSED
        ],
    ]


def _is_sparse(tensor: torch.Tensor, layout: torch.layout) -> bool:
    return tensor.layout is layout and type(tensor) in (torch.Tensor, torch.nn.Parameter)


def _flatten_coordinates(tensor: torch.Tensor) -> tuple[Parts, dict[str, Any]] | None:
    if not _is_sparse(tensor, torch.sparse_coo):
        return None
    held = tensor.detach()
    parts = {"indices": held._indices(), "values": held._values()}
    return parts, {"size": list(tensor.shape), "is_coalesced": tensor.is_coalesced()}


def _unflatten_coordinates(parts: Parts, values: dict[str, Any]) -> torch.Tensor:
    is_coalesced = values["is_coalesced"]
    if type(is_coalesced) is not bool:
        raise ValueError(f"is_coalesced is {is_coalesced!r}, no bool")
    indices, numbers = parts["indices"], parts["values"]
    return torch.sparse_coo_tensor(
        indices,
        numbers,
        values["size"],
        is_coalesced=is_coalesced,
        check_invariants=not numbers.is_meta,
    )


def _flatten_compressed(
    layout: torch.layout, tensor: torch.Tensor
) -> tuple[Parts, dict[str, Any]] | None:
    if not _is_sparse(tensor, layout):
        return None
    held = tensor.detach()
    names = _COMPRESSED[layout]
    parts = {name: getattr(held, name)() for name in names}
    return parts | {"values": held.values()}, {"size": list(tensor.shape)}


def _unflatten_compressed(
    layout: torch.layout, parts: Parts, values: dict[str, Any]
) -> torch.Tensor:
    compressed, plain = (parts[name] for name in _COMPRESSED[layout])
    numbers = parts["values"]
    # Here, torch checks that all indices are in range. Kernels do not check it.
    return torch.sparse_compressed_tensor(
        compressed,
        plain,
        numbers,
        values["size"],
        layout=layout,
        check_invariants=not numbers.is_meta,
    )
